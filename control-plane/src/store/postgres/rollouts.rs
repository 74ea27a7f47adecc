//! Rollouts in PostgreSQL.

use super::{PostgresStore, Trouble, Tx, limited, signed, unsigned};
use crate::model::Digest;
use crate::store::{KEYS_MAX, RolloutStore, STEPS_MAX, StepRecord, StoreError, Submitted};

/// The epoch of the lease and the step that is kept. Whoever takes the lease waits until this transaction has ended, or has
/// ended before.
fn current(t: &mut Tx<'_>, group: &str) -> Result<(i64, i64), Trouble> {
    let sql = "SELECT epoch FROM leases WHERE rollout_group = $1 FOR SHARE";
    let epoch = t.value(sql, &[&group])?;
    let sql = "SELECT step FROM rollouts WHERE rollout_group = $1 FOR UPDATE";
    let step = t.value(sql, &[&group])?;
    Ok((epoch.unwrap_or(0), step.unwrap_or(0)))
}

fn consume(t: &mut Tx<'_>, group: &str, seq: u64) -> Result<(), Trouble> {
    // The key stays, so that what comes twice is known.
    t.execute(
        "UPDATE rollout_inputs SET body = NULL
         WHERE rollout_group = $1 AND seq <= $2 AND body IS NOT NULL",
        &[&group, &signed(seq)],
    )?;
    t.execute(
        "DELETE FROM rollout_inputs WHERE body IS NULL AND rollout_group = $1 AND seq <= $2",
        &[&group, &(signed(seq) - KEYS_MAX)],
    )?;
    Ok(())
}

fn pin(t: &mut Tx<'_>, group: &str, pins: &[Digest]) -> Result<(), Trouble> {
    t.execute(
        "DELETE FROM rollout_pins WHERE rollout_group = $1",
        &[&group],
    )?;
    for pin in pins {
        let sql = "INSERT INTO rollout_pins (rollout_group, digest) VALUES ($1, $2)";
        t.execute(sql, &[&group, &pin.as_str()])?;
    }
    Ok(())
}

impl RolloutStore for PostgresStore {
    fn lease(
        &self,
        group: &str,
        holder: &str,
        now_ms: u64,
        ttl_ms: u64,
    ) -> Result<Option<u64>, StoreError> {
        // None: the clock of the database.
        let now = self.callers_clock.then_some(signed(now_ms));
        self.transact(|t| {
            let epoch: Option<i64> = t.value(
                "INSERT INTO leases AS l (rollout_group, holder, epoch, until_ms)
                 VALUES ($1, $2, 1,
                   coalesce($3::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + $4)
                 ON CONFLICT (rollout_group) DO UPDATE SET
                   epoch = l.epoch + (l.holder <> excluded.holder)::int,
                   holder = excluded.holder, until_ms = excluded.until_ms
                 WHERE l.holder = excluded.holder OR l.until_ms <= excluded.until_ms - $4
                 RETURNING epoch",
                &[&group, &holder, &now, &signed(ttl_ms)],
            )?;
            Ok(epoch.map(|e| e as u64))
        })
    }

    fn resign(&self, group: &str, holder: &str) -> Result<(), StoreError> {
        self.transact(|t| {
            let sql = "UPDATE leases SET until_ms = 0 WHERE rollout_group = $1 AND holder = $2";
            t.execute(sql, &[&group, &holder])?;
            Ok(())
        })
    }

    fn rollout(&self, group: &str) -> Result<Option<String>, StoreError> {
        self.transact(|t| {
            let sql = "SELECT state FROM rollouts WHERE rollout_group = $1";
            t.value(sql, &[&group])
        })
    }

    fn groups(&self) -> Result<Vec<String>, StoreError> {
        self.transact(|t| {
            let rows = t.rows(
                "SELECT rollout_group FROM rollouts
                 UNION SELECT rollout_group FROM rollout_inputs ORDER BY 1",
                &[],
            )?;
            rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
        })
    }

    fn keep_rollout(
        &self,
        group: &str,
        record: &StepRecord,
        state: &str,
        pins: &[Digest],
        consumed: Option<u64>,
    ) -> Result<bool, StoreError> {
        self.transact(|t| {
            let (epoch, step) = current(t, group)?;
            if epoch != signed(record.epoch) || step + 1 != signed(record.step) {
                return Ok(false);
            }
            t.execute(
                "INSERT INTO rollouts (rollout_group, step, state) VALUES ($1, $2, $3)
                 ON CONFLICT (rollout_group) DO UPDATE SET
                   step = excluded.step, state = excluded.state",
                &[&group, &(step + 1), &state],
            )?;
            t.execute(
                "INSERT INTO rollout_steps (rollout_group, step, epoch, at_ms, phase, input)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[
                    &group,
                    &(step + 1),
                    &epoch,
                    &signed(record.at_ms),
                    &record.phase,
                    &record.input,
                ],
            )?;
            t.execute(
                "DELETE FROM rollout_steps WHERE rollout_group = $1 AND step <= $2",
                &[&group, &(step + 1 - STEPS_MAX)],
            )?;
            pin(t, group, pins)?;
            if let Some(seq) = consumed {
                consume(t, group, seq)?;
            }
            Ok(true)
        })
    }

    fn submit(&self, group: &str, key: &str, body: &str) -> Result<bool, StoreError> {
        self.transact(|t| {
            // What is taken in is all up to a place: none may come later below it.
            t.execute("LOCK TABLE rollout_inputs IN SHARE ROW EXCLUSIVE MODE", &[])?;
            let new = t.execute(
                "INSERT INTO rollout_inputs (rollout_group, key, body) VALUES ($1, $2, $3)
                 ON CONFLICT DO NOTHING",
                &[&group, &key, &body],
            )?;
            Ok(new > 0)
        })
    }

    fn submitted(&self, group: &str) -> Result<Option<Submitted>, StoreError> {
        self.transact(|t| {
            let row = t.row(
                "SELECT seq, body FROM rollout_inputs
                 WHERE rollout_group = $1 AND body IS NOT NULL ORDER BY seq LIMIT 1",
                &[&group],
            )?;
            row.map(|row| {
                Ok(Submitted {
                    seq: unsigned(&row, 0)?,
                    body: row.try_get(1)?,
                })
            })
            .transpose()
        })
    }

    fn steps(&self, group: &str, limit: usize) -> Result<Vec<StepRecord>, StoreError> {
        self.transact(|t| {
            let rows = t.rows(
                "SELECT epoch, step, at_ms, phase, input FROM rollout_steps
                 WHERE rollout_group = $1 ORDER BY step DESC LIMIT $2",
                &[&group, &limited(limit)],
            )?;
            let read = |row: &postgres::Row| {
                Ok(StepRecord {
                    epoch: unsigned(row, 0)?,
                    step: unsigned(row, 1)?,
                    at_ms: unsigned(row, 2)?,
                    phase: row.try_get(3)?,
                    input: row.try_get(4)?,
                })
            };
            rows.iter().map(read).collect()
        })
    }
}
