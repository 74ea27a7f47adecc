//! What was applied and released, in SQLite.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::SqliteStore;
use crate::model::Digest;
use crate::store::releases::{RELEASES_MAX, VERSION};
use crate::store::{Applied, Release, Releases, StoreError};

impl Releases for SqliteStore {
    fn keep_applied(&self, body: &str, applied: &Applied) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute(
                "INSERT INTO artefacts (digest, kind, body) VALUES (?1, 'pipeline', ?2)
                 ON CONFLICT (digest) DO NOTHING",
                params![applied.digest.as_str(), body],
            )?;
            t.execute(
                "INSERT INTO applied (rollout_group, digest, parent, cause, author, at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    applied.group,
                    applied.digest.as_str(),
                    applied.parent.as_ref().map(Digest::as_str),
                    applied.cause,
                    applied.author,
                    applied.at_ms as i64,
                ],
            )?;
            Ok(())
        })
    }

    fn applied(&self, group: &str, limit: usize) -> Result<Vec<Applied>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT digest, parent, cause, author, at_ms FROM applied
             WHERE rollout_group = ?1 ORDER BY seq DESC LIMIT ?2",
        )?;
        let rows = query.query_map(params![group, limit as i64], |row| {
            Ok(Applied {
                group: group.to_owned(),
                digest: digest(row, 0)?,
                parent: row.get::<_, Option<String>>(1)?.map(Digest::from_text),
                cause: row.get(2)?,
                author: row.get(3)?,
                at_ms: row.get::<_, i64>(4)? as u64,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn release(
        &self,
        draft: Release,
        sign: &(dyn Fn(u64) -> String + Sync),
    ) -> Result<Release, StoreError> {
        self.durably(|t| {
            let version = raise(t, None)?;
            let release = Release {
                version,
                signature: sign(version),
                ..draft
            };
            t.execute(
                "INSERT INTO releases VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    version as i64,
                    release.group,
                    release.digest.as_str(),
                    release.cause,
                    release.key,
                    release.signature,
                    release.at_ms as i64,
                ],
            )?;
            t.execute(
                "DELETE FROM releases WHERE rollout_group = ?1 AND version <=
                   (SELECT version FROM releases WHERE rollout_group = ?1
                    ORDER BY version DESC LIMIT 1 OFFSET ?2)",
                params![release.group, RELEASES_MAX as i64],
            )?;
            Ok(release)
        })
    }

    fn releases(&self, group: &str, limit: usize) -> Result<Vec<Release>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT digest, version, cause, key, signature, at_ms FROM releases
             WHERE rollout_group = ?1 ORDER BY version DESC LIMIT ?2",
        )?;
        let rows = query.query_map(params![group, limit as i64], |row| {
            Ok(Release {
                group: group.to_owned(),
                digest: digest(row, 0)?,
                version: row.get::<_, i64>(1)? as u64,
                cause: row.get(2)?,
                key: row.get(3)?,
                signature: row.get(4)?,
                at_ms: row.get::<_, i64>(5)? as u64,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn version(&self) -> Result<u64, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT value FROM counters WHERE name = ?1")?;
        let value: Option<i64> = query.query_row([VERSION], |row| row.get(0)).optional()?;
        Ok(value.unwrap_or(0) as u64)
    }

    fn raise_version(&self, to: u64) -> Result<u64, StoreError> {
        self.durably(|t| raise(t, Some(to)))
    }

    fn forget_texts(&self, runs: &[Digest], history: usize) -> Result<usize, StoreError> {
        self.transact(|t| {
            t.execute(
                "DELETE FROM applied WHERE seq NOT IN
                   (SELECT seq FROM (SELECT seq, row_number() OVER
                      (PARTITION BY rollout_group ORDER BY seq DESC) AS place FROM applied)
                    WHERE place <= ?1)",
                [history as i64],
            )?;
            t.execute_batch("CREATE TEMP TABLE IF NOT EXISTS runs (digest TEXT PRIMARY KEY); DELETE FROM runs;")?;
            let mut insert = t.prepare("INSERT OR IGNORE INTO runs VALUES (?1)")?;
            for digest in runs {
                insert.execute([digest.as_str()])?;
            }
            // What was submitted and not taken in names its text somewhere in its body.
            let forgotten = t.execute(
                "DELETE FROM artefacts WHERE kind = 'pipeline' AND digest NOT IN
                   (SELECT digest FROM runs UNION SELECT digest FROM rollout_pins
                    UNION SELECT digest FROM applied UNION SELECT pipeline FROM offers
                    UNION SELECT targets FROM offers)
                 AND NOT EXISTS (SELECT 1 FROM rollout_inputs
                   WHERE body IS NOT NULL AND instr(body, artefacts.digest) > 0)
                 AND NOT EXISTS (SELECT 1 FROM rollouts WHERE artefacts.digest IN
                   (json_extract(state, '$.pending'), json_extract(state, '$.candidate.revision')))",
                [],
            )?;
            Ok(forgotten)
        })
    }
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    Ok(Digest::from_text(row.get::<_, String>(column)?))
}

/// The counter, one more or at least `to`.
fn raise(t: &Transaction<'_>, to: Option<u64>) -> Result<u64, StoreError> {
    let to = to.map(|to| i64::try_from(to).unwrap_or(i64::MAX - 1));
    let mut query = t.prepare(
        "INSERT INTO counters (name, value) VALUES (?1, coalesce(?2, 1))
         ON CONFLICT (name) DO UPDATE SET value = max(value, coalesce(?2, value + 1))
         RETURNING value",
    )?;
    let value: i64 = query.query_row(params![VERSION, to], |row| row.get(0))?;
    Ok(value as u64)
}
