//! Events, sources and offers in PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};

use postgres::Row;

use super::{PostgresStore, Trouble, Tx, limited, signed, unsigned};
use crate::model::{Descriptor, Event, Manifest, Origin, Source, State};
use crate::registry::{Changes, Transition};
use crate::store::{Offered, Recorded, Retention, Store, StoreError, damaged, to_json};

fn advance(t: &mut Tx<'_>, consumer: &str, seq: u64) -> Result<(), Trouble> {
    t.execute(
        "INSERT INTO cursors AS c (consumer, seq) VALUES ($1, $2)
         ON CONFLICT (consumer) DO UPDATE SET seq = greatest(c.seq, excluded.seq)",
        &[&consumer, &signed(seq)],
    )?;
    Ok(())
}

fn put_source(t: &mut Tx<'_>, s: &Source) -> Result<bool, Trouble> {
    let descriptor = s.descriptor.as_ref().map(to_json).transpose()?;
    let digest = s.descriptor.as_ref().map(|d| d.digest().to_string());
    let changed = t.execute(
        "INSERT INTO sources AS s
           (id, origin, generation, described, descriptor, digest, present, state, since_ns, seen)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (id) DO UPDATE SET
           generation = excluded.generation, described = excluded.described,
           descriptor = excluded.descriptor, digest = excluded.digest,
           present = excluded.present, state = excluded.state,
           since_ns = excluded.since_ns, seen = excluded.seen
         WHERE excluded.generation >= s.generation AND excluded.described >= s.described",
        &[
            &s.id,
            &s.origin.name(),
            &s.generation,
            &s.described,
            &descriptor,
            &digest,
            &s.present,
            &s.state.name(),
            &s.since_ns,
            &s.seen,
        ],
    )?;
    Ok(changed > 0)
}

fn read_source(row: &Row) -> Result<Source, Trouble> {
    let (origin, state): (String, String) = (row.try_get("origin")?, row.try_get("state")?);
    let id: String = row.try_get("id")?;
    let unknown = || damaged(format!("source {id}: {origin}, {state}"));
    let descriptor: Option<String> = row.try_get("descriptor")?;
    let descriptor: Option<Descriptor> = descriptor
        .map(|text| serde_json::from_str(&text).map_err(damaged))
        .transpose()?;
    Ok(Source {
        origin: Origin::of_name(&origin).ok_or_else(unknown)?,
        state: State::of_name(&state).ok_or_else(unknown)?,
        generation: row.try_get("generation")?,
        described: row.try_get("described")?,
        descriptor,
        present: row.try_get("present")?,
        since_ns: row.try_get("since_ns")?,
        seen: row.try_get("seen")?,
        id,
    })
}

fn read_transition(row: &Row) -> Result<Transition, Trouble> {
    let state = |name: &str| State::of_name(name).ok_or_else(|| damaged(format!("state {name}")));
    let before: Option<String> = row.try_get(2)?;
    let after: String = row.try_get(3)?;
    Ok(Transition {
        id: row.try_get(0)?,
        generation: row.try_get(1)?,
        from: before.as_deref().map(state).transpose()?,
        to: state(&after)?,
        reason: row.try_get(4)?,
    })
}

fn read_offer(row: &Row) -> Result<Offered, Trouble> {
    let body: String = row.try_get(0)?;
    let manifest: Manifest = serde_json::from_str(&body).map_err(damaged)?;
    Ok(Offered {
        manifest,
        applied: row.try_get(1)?,
        answer: row.try_get(2)?,
    })
}

fn write(t: &mut Tx<'_>, changes: &Changes) -> Result<(), Trouble> {
    let mut written = BTreeSet::new();
    // Always in one order, so that two never wait for each other.
    let sorted: BTreeMap<_, _> = changes.sources.iter().map(|s| (&s.id, s)).collect();
    for (id, source) in sorted {
        if put_source(t, source)? {
            written.insert(id);
        }
    }
    for (origin, generation) in &changes.snapshots {
        t.execute(
            "INSERT INTO snapshots AS s (origin, generation) VALUES ($1, $2)
             ON CONFLICT (origin) DO UPDATE SET generation = greatest(s.generation, excluded.generation)",
            &[&origin.name(), generation],
        )?;
    }
    for moved in changes.history.iter().filter(|m| written.contains(&m.id)) {
        t.execute(
            "INSERT INTO history (id, generation, before, after, reason) VALUES ($1, $2, $3, $4, $5)",
            &[
                &moved.id,
                &moved.generation,
                &moved.from.map(State::name),
                &moved.to.name(),
                &moved.reason,
            ],
        )?;
    }
    Ok(())
}

impl Store for PostgresStore {
    fn publish(&self, key: &str, event: &Event, at_ns: i64) -> Result<Option<u64>, StoreError> {
        let body = to_json(event)?;
        self.transact(|t| {
            // Consumers go by places: none may come later below one that was seen.
            t.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE", &[])?;
            let seq: Option<i64> = t.value(
                "INSERT INTO events (key, at_ns, body) VALUES ($1, $2, $3)
                 ON CONFLICT (key) DO NOTHING RETURNING seq",
                &[&key, &at_ns, &body],
            )?;
            Ok(seq.map(|s| s as u64))
        })
    }

    fn events_after(&self, seq: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        self.transact(|t| {
            let rows = t.rows(
                "SELECT seq, key, body FROM events WHERE seq > $1 ORDER BY seq LIMIT $2",
                &[&signed(seq), &limited(limit)],
            )?;
            let read = |row: &Row| {
                let body: String = row.try_get(2)?;
                Ok(Recorded {
                    seq: unsigned(row, 0)?,
                    key: row.try_get(1)?,
                    event: serde_json::from_str(&body).map_err(damaged)?,
                })
            };
            rows.iter().map(read).collect()
        })
    }

    fn forgotten_events(&self) -> Result<u64, StoreError> {
        self.transact(|t| {
            let seq: Option<i64> = t.value("SELECT seq FROM forgotten", &[])?;
            Ok(seq.unwrap_or(0) as u64)
        })
    }

    fn cursor(&self, consumer: &str) -> Result<u64, StoreError> {
        self.transact(|t| {
            let sql = "SELECT seq FROM cursors WHERE consumer = $1";
            let seq: Option<i64> = t.value(sql, &[&consumer])?;
            Ok(seq.unwrap_or(0) as u64)
        })
    }

    fn advance(&self, consumer: &str, seq: u64) -> Result<(), StoreError> {
        self.transact(|t| advance(t, consumer, seq))
    }

    fn apply(&self, changes: &Changes, read: Option<(&str, u64)>) -> Result<(), StoreError> {
        self.transact(|t| {
            write(t, changes)?;
            match read {
                Some((consumer, seq)) => advance(t, consumer, seq),
                None => Ok(()),
            }
        })
    }

    fn sources(&self) -> Result<Vec<Source>, StoreError> {
        self.transact(|t| {
            let rows = t.rows("SELECT * FROM sources ORDER BY id", &[])?;
            rows.iter().map(read_source).collect()
        })
    }

    fn snapshots(&self) -> Result<BTreeMap<Origin, i64>, StoreError> {
        self.transact(|t| {
            let rows = t.rows("SELECT origin, generation FROM snapshots", &[])?;
            let read = |row: &Row| {
                let origin: String = row.try_get(0)?;
                let known = Origin::of_name(&origin).ok_or_else(|| damaged(&origin))?;
                Ok((known, row.try_get(1)?))
            };
            rows.iter().map(read).collect()
        })
    }

    fn history(&self, id: &str, limit: usize) -> Result<Vec<Transition>, StoreError> {
        self.transact(|t| {
            let rows = t.rows(
                "SELECT id, generation, before, after, reason FROM history
                 WHERE id = $1 ORDER BY seq DESC LIMIT $2",
                &[&id, &limited(limit)],
            )?;
            rows.iter().map(read_transition).collect()
        })
    }

    fn record_offer(&self, offered: &Offered, at_ns: i64) -> Result<(), StoreError> {
        let manifest = &offered.manifest;
        let body = to_json(manifest)?;
        self.transact(|t| {
            t.execute(
                "INSERT INTO offers (manifest, pipeline, targets, body, at_ns, applied, answer)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    &manifest.digest().as_str(),
                    &manifest.pipeline.as_str(),
                    &manifest.targets.as_str(),
                    &body,
                    &at_ns,
                    &offered.applied,
                    &offered.answer,
                ],
            )?;
            Ok(())
        })
    }

    fn offers(&self, limit: usize) -> Result<Vec<Offered>, StoreError> {
        self.transact(|t| {
            let sql = "SELECT body, applied, answer FROM offers ORDER BY seq DESC LIMIT $1";
            let rows = t.rows(sql, &[&limited(limit)])?;
            rows.iter().map(read_offer).collect()
        })
    }

    fn prune(&self, keep: &Retention) -> Result<Vec<String>, StoreError> {
        self.transact(|t| {
            // Whoever keeps a text at the same time has ended before, or keeps it anew.
            t.execute("LOCK TABLE artefacts IN SHARE ROW EXCLUSIVE MODE", &[])?;
            prune_events(t, keep.events)?;
            t.execute(
                "DELETE FROM offers WHERE seq <= (SELECT coalesce(max(seq), 0) FROM offers) - $1",
                &[&signed(keep.offers)],
            )?;
            t.execute(
                "DELETE FROM artefacts WHERE digest NOT IN
                   (SELECT pipeline FROM offers UNION SELECT targets FROM offers
                    UNION SELECT digest FROM rollout_pins)",
                &[],
            )?;
            forget_sources(t, keep.gone_before_ns, keep.history)
        })
    }

    fn prune_events(&self, keep: u64) -> Result<u64, StoreError> {
        self.transact(|t| prune_events(t, keep))
    }

    fn forget_sources(&self, gone_before_ns: i64, history: u64) -> Result<Vec<String>, StoreError> {
        self.transact(|t| forget_sources(t, gone_before_ns, history))
    }
}

/// What a consumer has not had stays, however much it is.
fn prune_events(t: &mut Tx<'_>, keep: u64) -> Result<u64, Trouble> {
    let newest: Option<i64> = t.value(
        "SELECT coalesce(max(seq), 0) FROM events
         WHERE seq <= (SELECT coalesce(min(seq), 0) FROM cursors WHERE consumer NOT LIKE '%@%')
           AND seq <= (SELECT coalesce(max(seq), 0) FROM events) - $1",
        &[&signed(keep)],
    )?;
    let newest = newest.unwrap_or(0);
    let gone = t.execute("DELETE FROM events WHERE seq <= $1", &[&newest])?;
    t.execute("UPDATE forgotten SET seq = greatest(seq, $1)", &[&newest])?;
    Ok(gone)
}

fn forget_sources(
    t: &mut Tx<'_>,
    gone_before_ns: i64,
    history: u64,
) -> Result<Vec<String>, Trouble> {
    t.execute(
        "DELETE FROM history WHERE seq <= (SELECT coalesce(max(seq), 0) FROM history) - $1",
        &[&signed(history)],
    )?;
    let rows = t.rows(
        "DELETE FROM sources WHERE state = 'gone' AND since_ns < $1 RETURNING id",
        &[&gone_before_ns],
    )?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
