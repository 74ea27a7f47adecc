//! Rollouts in SQLite.

use rusqlite::{OptionalExtension, Transaction, params};

use super::SqliteStore;
use crate::model::Digest;
use crate::store::{KEYS_MAX, RolloutStore, STEPS_MAX, StepRecord, StoreError, Submitted};

fn current(t: &Transaction<'_>, group: &str) -> Result<(i64, i64), StoreError> {
    let row = "SELECT
        coalesce((SELECT epoch FROM leases WHERE rollout_group = ?1), 0),
        coalesce((SELECT step FROM rollouts WHERE rollout_group = ?1), 0)";
    Ok(t.query_row(row, [group], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

fn consume(t: &Transaction<'_>, group: &str, seq: u64) -> Result<(), StoreError> {
    // The key stays, so that what comes twice is known.
    t.execute(
        "UPDATE rollout_inputs SET body = NULL WHERE rollout_group = ?1 AND seq <= ?2",
        params![group, seq as i64],
    )?;
    t.execute(
        "DELETE FROM rollout_inputs WHERE body IS NULL AND rollout_group = ?1 AND seq <= ?2",
        params![group, seq as i64 - KEYS_MAX],
    )?;
    Ok(())
}

impl RolloutStore for SqliteStore {
    fn lease(
        &self,
        group: &str,
        holder: &str,
        now_ms: u64,
        ttl_ms: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.transact(|t| {
            let mut query = t.prepare(
                "INSERT INTO leases (rollout_group, holder, epoch, until_ms)
                 VALUES (?1, ?2, 1, ?4)
                 ON CONFLICT (rollout_group) DO UPDATE SET
                   epoch = epoch + (holder != excluded.holder),
                   holder = excluded.holder, until_ms = excluded.until_ms
                 WHERE holder = excluded.holder OR until_ms <= ?3
                 RETURNING epoch",
            )?;
            let until = now_ms.saturating_add(ttl_ms) as i64;
            let values = params![group, holder, now_ms as i64, until];
            let epoch: Option<i64> = query.query_row(values, |row| row.get(0)).optional()?;
            Ok(epoch.map(|e| e as u64))
        })
    }

    fn resign(&self, group: &str, holder: &str) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute(
                "UPDATE leases SET until_ms = 0 WHERE rollout_group = ?1 AND holder = ?2",
                [group, holder],
            )?;
            Ok(())
        })
    }

    fn rollout(&self, group: &str) -> Result<Option<String>, StoreError> {
        let connection = self.lock();
        let mut query =
            connection.prepare("SELECT state FROM rollouts WHERE rollout_group = ?1")?;
        Ok(query.query_row([group], |row| row.get(0)).optional()?)
    }

    fn groups(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT rollout_group FROM rollouts UNION SELECT rollout_group FROM rollout_inputs ORDER BY 1",
        )?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
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
            if epoch != record.epoch as i64 || step + 1 != record.step as i64 {
                return Ok(false);
            }
            t.prepare(
                "INSERT INTO rollouts (rollout_group, step, state) VALUES (?1, ?2, ?3)
                 ON CONFLICT (rollout_group) DO UPDATE SET
                   step = excluded.step, state = excluded.state",
            )?
            .execute(params![group, step + 1, state])?;
            t.prepare("INSERT INTO rollout_steps VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![
                    group,
                    step + 1,
                    epoch,
                    record.at_ms as i64,
                    record.phase,
                    record.input
                ])?;
            t.prepare("DELETE FROM rollout_steps WHERE rollout_group = ?1 AND step <= ?2")?
                .execute(params![group, step + 1 - STEPS_MAX])?;
            t.prepare("DELETE FROM rollout_pins WHERE rollout_group = ?1")?
                .execute([group])?;
            for pin in pins {
                t.prepare("INSERT INTO rollout_pins VALUES (?1, ?2)")?
                    .execute(params![group, pin.as_str()])?;
            }
            if let Some(seq) = consumed {
                consume(t, group, seq)?;
            }
            Ok(true)
        })
    }

    fn submit(&self, group: &str, key: &str, body: &str) -> Result<bool, StoreError> {
        self.transact(|t| {
            let new = t.execute(
                "INSERT INTO rollout_inputs (rollout_group, key, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                params![group, key, body],
            )?;
            Ok(new > 0)
        })
    }

    fn submitted(&self, group: &str) -> Result<Option<Submitted>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT seq, body FROM rollout_inputs
             WHERE rollout_group = ?1 AND body IS NOT NULL ORDER BY seq LIMIT 1",
        )?;
        let row = query.query_row([group], |row| {
            let seq: i64 = row.get(0)?;
            let body = row.get(1)?;
            Ok(Submitted {
                seq: seq as u64,
                body,
            })
        });
        Ok(row.optional()?)
    }

    fn steps(&self, group: &str, limit: usize) -> Result<Vec<StepRecord>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT epoch, step, at_ms, phase, input FROM rollout_steps
             WHERE rollout_group = ?1 ORDER BY step DESC LIMIT ?2",
        )?;
        let rows = query.query_map(params![group, limit as i64], |row| {
            let number = |i: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(i)? as u64);
            Ok(StepRecord {
                epoch: number(0)?,
                step: number(1)?,
                at_ms: number(2)?,
                phase: row.get(3)?,
                input: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
