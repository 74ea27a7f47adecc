//! The store of one machine: SQLite, one file below the state directory.
//!
//! A write-ahead log with `synchronous = NORMAL`: a transaction survives the process whatever happens to
//! it, and the machine's loss may take the newest ones along, which the next snapshot of each origin and the
//! agent's own positions make up for. The file may be looked into by any tool while this runs.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

mod certificates;
mod notified;
mod releases;
mod rollouts;

use super::{Artefacts, Offered, Recorded, Retention, Store, StoreError, damaged, to_json};
use crate::model::{Descriptor, Digest, Event, Manifest, Origin, Source, State};
use crate::registry::{Changes, Transition};

/// What brings a database from each version to the next. Never changed once it was released: a
/// change is one more.
const MIGRATIONS: &[&str] = &[
    include_str!("sqlite/1.sql"),
    include_str!("sqlite/2.sql"),
    include_str!("sqlite/3.sql"),
    include_str!("sqlite/4.sql"),
    include_str!("sqlite/5.sql"),
];

/// How long another process that looks into the file is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct SqliteStore {
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens or makes the database at `path`, and its directory for its owner alone.
    ///
    /// # Errors
    /// It cannot be opened, or a newer program wrote it.
    pub fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        if let Some(dir) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| StoreError::File {
                path: dir.display().to_string(),
                error,
            })?;
        }
        SqliteStore::new(Connection::open(path)?)
    }

    /// A store that ends with this value.
    ///
    /// # Errors
    /// There is no memory.
    pub fn in_memory() -> Result<SqliteStore, StoreError> {
        SqliteStore::new(Connection::open_in_memory()?)
    }

    fn new(mut connection: Connection) -> Result<SqliteStore, StoreError> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        migrate(&mut connection)?;
        let connection = Mutex::new(connection);
        Ok(SqliteStore { connection })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic left is rolled back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn transact<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

impl SqliteStore {
    /// As [`SqliteStore::transact`], and it survives the loss of the machine.
    fn durably<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        connection.pragma_update(None, "synchronous", "FULL")?;
        let done = (|| {
            let transaction = connection.transaction()?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })();
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        done
    }
}

/// Brings the schema up to date, a transaction for each version.
fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version = "user_version";
    let found: u32 = connection.pragma_query_value(None, version, |row| row.get(0))?;
    let known = MIGRATIONS.len() as u32;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, version, i as u32 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

fn advance(t: &Transaction<'_>, consumer: &str, seq: u64) -> Result<(), StoreError> {
    t.prepare(
        "INSERT INTO cursors (consumer, seq) VALUES (?1, ?2)
         ON CONFLICT (consumer) DO UPDATE SET seq = max(seq, excluded.seq)",
    )?
    .execute(params![consumer, seq as i64])?;
    Ok(())
}

fn put_source(t: &Transaction<'_>, s: &Source) -> Result<bool, StoreError> {
    let descriptor = s.descriptor.as_ref().map(to_json).transpose()?;
    let digest = s.descriptor.as_ref().map(|d| d.digest().to_string());
    let changed = t
        .prepare(
            "INSERT INTO sources
               (id, origin, generation, described, descriptor, digest, present, state, since_ns, seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET
               generation = excluded.generation, described = excluded.described,
               descriptor = excluded.descriptor, digest = excluded.digest,
               present = excluded.present, state = excluded.state,
               since_ns = excluded.since_ns, seen = excluded.seen
             WHERE excluded.generation >= sources.generation
               AND excluded.described >= sources.described",
        )?
        .execute(params![
            s.id,
            s.origin.name(),
            s.generation,
            s.described,
            descriptor,
            digest,
            s.present,
            s.state.name(),
            s.since_ns,
            s.seen
        ])?;
    Ok(changed > 0)
}

fn read_source(row: &Row<'_>) -> rusqlite::Result<(Source, String, String, Option<String>)> {
    let (origin, state): (String, String) = (row.get("origin")?, row.get("state")?);
    let source = Source {
        id: row.get("id")?,
        origin: Origin::of_name(&origin).unwrap_or(Origin::Static),
        generation: row.get("generation")?,
        described: row.get("described")?,
        descriptor: None,
        present: row.get("present")?,
        state: State::of_name(&state).unwrap_or(State::Gone),
        since_ns: row.get("since_ns")?,
        seen: row.get("seen")?,
    };
    Ok((source, origin, state, row.get("descriptor")?))
}

impl Artefacts for SqliteStore {
    fn put_artefact(&self, kind: &str, digest: &Digest, body: &str) -> Result<(), StoreError> {
        self.transact(|t| {
            t.prepare(
                "INSERT INTO artefacts (digest, kind, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT (digest) DO NOTHING",
            )?
            .execute(params![digest.as_str(), kind, body])?;
            Ok(())
        })
    }

    fn artefact(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT body FROM artefacts WHERE digest = ?1")?;
        let body = query.query_row([digest.as_str()], |row| row.get(0));
        Ok(body.optional()?)
    }
}

impl Store for SqliteStore {
    fn publish(&self, key: &str, event: &Event, at_ns: i64) -> Result<Option<u64>, StoreError> {
        let body = to_json(event)?;
        self.transact(|t| {
            let new = t
                .prepare(
                    "INSERT INTO events (key, at_ns, body) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO NOTHING",
                )?
                .execute(params![key, at_ns, body])?;
            Ok((new > 0).then(|| t.last_insert_rowid() as u64))
        })
    }

    fn events_after(&self, seq: u64, limit: usize) -> Result<Vec<Recorded>, StoreError> {
        let connection = self.lock();
        let mut query = connection
            .prepare("SELECT seq, key, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        let rows = query.query_map(params![seq as i64, limit as i64], |row| {
            let seq: i64 = row.get(0)?;
            Ok((seq as u64, row.get(1)?, row.get::<_, String>(2)?))
        })?;
        rows.map(|row| {
            let (seq, key, body) = row?;
            let event = serde_json::from_str(&body).map_err(damaged)?;
            Ok(Recorded { seq, key, event })
        })
        .collect()
    }

    fn forgotten_events(&self) -> Result<u64, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT seq FROM forgotten")?;
        let seq: i64 = query.query_row([], |row| row.get(0))?;
        Ok(seq as u64)
    }

    fn cursor(&self, consumer: &str) -> Result<u64, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT seq FROM cursors WHERE consumer = ?1")?;
        let seq: Option<i64> = query.query_row([consumer], |row| row.get(0)).optional()?;
        Ok(seq.unwrap_or_default() as u64)
    }

    fn advance(&self, consumer: &str, seq: u64) -> Result<(), StoreError> {
        self.transact(|t| advance(t, consumer, seq))
    }

    fn apply(&self, changes: &Changes, read: Option<(&str, u64)>) -> Result<(), StoreError> {
        self.transact(|t| {
            let mut written = std::collections::BTreeSet::new();
            for source in &changes.sources {
                if put_source(t, source)? {
                    written.insert(&source.id);
                }
            }
            for (origin, generation) in &changes.snapshots {
                t.prepare(
                    "INSERT INTO snapshots (origin, generation) VALUES (?1, ?2)
                     ON CONFLICT (origin) DO UPDATE SET generation = max(generation, excluded.generation)",
                )?
                .execute(params![origin.name(), generation])?;
            }
            for moved in changes.history.iter().filter(|m| written.contains(&m.id)) {
                t.prepare(
                    "INSERT INTO history (id, generation, before, after, reason)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    moved.id,
                    moved.generation,
                    moved.from.map(State::name),
                    moved.to.name(),
                    moved.reason
                ])?;
            }
            match read {
                Some((consumer, seq)) => advance(t, consumer, seq),
                None => Ok(()),
            }
        })
    }

    fn sources(&self) -> Result<Vec<Source>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT * FROM sources ORDER BY id")?;
        let rows = query.query_map([], read_source)?;
        rows.map(|row| {
            let (mut source, origin, state, descriptor) = row?;
            if Origin::of_name(&origin).is_none() || State::of_name(&state).is_none() {
                return Err(damaged(format!("source {}: {origin}, {state}", source.id)));
            }
            if let Some(text) = descriptor {
                let descriptor: Descriptor = serde_json::from_str(&text).map_err(damaged)?;
                source.descriptor = Some(descriptor);
            }
            Ok(source)
        })
        .collect()
    }

    fn snapshots(&self) -> Result<BTreeMap<Origin, i64>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT origin, generation FROM snapshots")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (origin, generation) = row?;
            let origin = Origin::of_name(&origin).ok_or_else(|| damaged(&origin))?;
            Ok((origin, generation))
        })
        .collect()
    }

    fn history(&self, id: &str, limit: usize) -> Result<Vec<Transition>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT id, generation, before, after, reason FROM history
             WHERE id = ?1 ORDER BY seq DESC LIMIT ?2",
        )?;
        let rows = query.query_map(params![id, limit as i64], |row| {
            let state = |text: Option<String>| text.as_deref().and_then(State::of_name);
            Ok(Transition {
                id: row.get(0)?,
                generation: row.get(1)?,
                from: state(row.get(2)?),
                to: state(row.get(3)?).unwrap_or(State::Gone),
                reason: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn record_offer(&self, offered: &Offered, at_ns: i64) -> Result<(), StoreError> {
        let manifest = &offered.manifest;
        let body = to_json(manifest)?;
        self.transact(|t| {
            t.prepare(
                "INSERT INTO offers (manifest, pipeline, targets, body, at_ns, applied, answer)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                manifest.digest().as_str(),
                manifest.pipeline.as_str(),
                manifest.targets.as_str(),
                body,
                at_ns,
                offered.applied,
                offered.answer
            ])?;
            Ok(())
        })
    }

    fn offers(&self, limit: usize) -> Result<Vec<Offered>, StoreError> {
        let connection = self.lock();
        let mut query = connection
            .prepare("SELECT body, applied, answer FROM offers ORDER BY seq DESC LIMIT ?1")?;
        let rows = query.query_map([limit as i64], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        })?;
        rows.map(|row| {
            let (body, applied, answer) = row?;
            let manifest: Manifest = serde_json::from_str(&body).map_err(damaged)?;
            Ok(Offered {
                manifest,
                applied,
                answer,
            })
        })
        .collect()
    }

    fn prune(&self, keep: &Retention) -> Result<Vec<String>, StoreError> {
        self.transact(|t| {
            prune_events(t, keep.events)?;
            t.execute(
                "DELETE FROM offers WHERE seq <= (SELECT coalesce(max(seq), 0) FROM offers) - ?1",
                [keep.offers as i64],
            )?;
            t.execute(
                "DELETE FROM artefacts WHERE digest NOT IN
                   (SELECT pipeline FROM offers UNION SELECT targets FROM offers
                    UNION SELECT digest FROM rollout_pins)",
                [],
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
fn prune_events(t: &Transaction<'_>, keep: u64) -> Result<u64, StoreError> {
    let newest: i64 = t.query_row(
        "SELECT coalesce(max(seq), 0) FROM events
         WHERE seq <= (SELECT coalesce(min(seq), 0) FROM cursors WHERE consumer NOT LIKE '%@%')
           AND seq <= (SELECT coalesce(max(seq), 0) FROM events) - ?1",
        [keep as i64],
        |row| row.get(0),
    )?;
    let gone = t.execute("DELETE FROM events WHERE seq <= ?1", [newest])?;
    t.execute("UPDATE forgotten SET seq = max(seq, ?1)", [newest])?;
    Ok(gone as u64)
}

fn forget_sources(
    t: &rusqlite::Transaction<'_>,
    gone_before_ns: i64,
    history: u64,
) -> Result<Vec<String>, StoreError> {
    t.execute(
        "DELETE FROM history WHERE seq <= (SELECT coalesce(max(seq), 0) FROM history) - ?1",
        [history as i64],
    )?;
    let mut query =
        t.prepare("DELETE FROM sources WHERE state = 'gone' AND since_ns < ?1 RETURNING id")?;
    let ids = query.query_map([gone_before_ns], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}
