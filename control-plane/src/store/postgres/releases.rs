//! What was applied and released, in PostgreSQL.

use postgres::Row;

use super::{PostgresStore, Trouble, Tx, limited, signed, unsigned};
use crate::model::Digest;
use crate::store::releases::{RELEASES_MAX, VERSION};
use crate::store::{Applied, Release, Releases, StoreError};

fn digest(row: &Row, column: usize) -> Result<Digest, Trouble> {
    Ok(Digest::from_text(row.try_get::<_, String>(column)?))
}

/// The counter, one more or at least `to`. Others wait until this transaction has ended.
fn raise(t: &mut Tx<'_>, to: Option<u64>) -> Result<u64, Trouble> {
    let to = to.map(|to| signed(to).min(i64::MAX - 1));
    let value: Option<i64> = t.value(
        "INSERT INTO counters AS c (name, value) VALUES ($1, coalesce($2::bigint, 1))
         ON CONFLICT (name) DO UPDATE SET value = greatest(c.value, coalesce($2::bigint, c.value + 1))
         RETURNING value",
        &[&VERSION, &to],
    )?;
    Ok(value.unwrap_or(0) as u64)
}

impl Releases for PostgresStore {
    fn keep_applied(&self, body: &str, applied: &Applied) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute(
                "INSERT INTO artefacts (digest, kind, body) VALUES ($1, 'pipeline', $2)
                 ON CONFLICT (digest) DO NOTHING",
                &[&applied.digest.as_str(), &body],
            )?;
            t.execute(
                "INSERT INTO applied (rollout_group, digest, parent, cause, author, at_ms)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[
                    &applied.group,
                    &applied.digest.as_str(),
                    &applied.parent.as_ref().map(Digest::as_str),
                    &applied.cause,
                    &applied.author,
                    &signed(applied.at_ms),
                ],
            )?;
            Ok(())
        })
    }

    fn applied(&self, group: &str, limit: usize) -> Result<Vec<Applied>, StoreError> {
        self.transact(|t| {
            let rows = t.rows(
                "SELECT digest, parent, cause, author, at_ms FROM applied
                 WHERE rollout_group = $1 ORDER BY seq DESC LIMIT $2",
                &[&group, &limited(limit)],
            )?;
            let read = |row: &Row| {
                let parent: Option<String> = row.try_get(1)?;
                Ok(Applied {
                    group: group.to_owned(),
                    digest: digest(row, 0)?,
                    parent: parent.map(Digest::from_text),
                    cause: row.try_get(2)?,
                    author: row.try_get(3)?,
                    at_ms: unsigned(row, 4)?,
                })
            };
            rows.iter().map(read).collect()
        })
    }

    fn release(
        &self,
        draft: Release,
        sign: &(dyn Fn(u64) -> String + Sync),
    ) -> Result<Release, StoreError> {
        self.transact(|t| {
            let version = raise(t, None)?;
            let release = Release {
                version,
                signature: sign(version),
                ..draft.clone()
            };
            t.execute(
                "INSERT INTO releases (version, rollout_group, digest, cause, key, signature, at_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    &signed(version),
                    &release.group,
                    &release.digest.as_str(),
                    &release.cause,
                    &release.key,
                    &release.signature,
                    &signed(release.at_ms),
                ],
            )?;
            t.execute(
                "DELETE FROM releases WHERE rollout_group = $1 AND version <=
                   (SELECT version FROM releases WHERE rollout_group = $1
                    ORDER BY version DESC LIMIT 1 OFFSET $2)",
                &[&release.group, &limited(RELEASES_MAX)],
            )?;
            Ok(release)
        })
    }

    fn releases(&self, group: &str, limit: usize) -> Result<Vec<Release>, StoreError> {
        self.transact(|t| {
            let rows = t.rows(
                "SELECT digest, version, cause, key, signature, at_ms FROM releases
                 WHERE rollout_group = $1 ORDER BY version DESC LIMIT $2",
                &[&group, &limited(limit)],
            )?;
            let read = |row: &Row| {
                Ok(Release {
                    group: group.to_owned(),
                    digest: digest(row, 0)?,
                    version: unsigned(row, 1)?,
                    cause: row.try_get(2)?,
                    key: row.try_get(3)?,
                    signature: row.try_get(4)?,
                    at_ms: unsigned(row, 5)?,
                })
            };
            rows.iter().map(read).collect()
        })
    }

    fn version(&self) -> Result<u64, StoreError> {
        self.transact(|t| {
            let sql = "SELECT value FROM counters WHERE name = $1";
            let value: Option<i64> = t.value(sql, &[&VERSION])?;
            Ok(value.unwrap_or(0) as u64)
        })
    }

    fn raise_version(&self, to: u64) -> Result<u64, StoreError> {
        self.transact(|t| raise(t, Some(to)))
    }

    fn forget_texts(&self, runs: &[Digest], history: usize) -> Result<usize, StoreError> {
        let runs: Vec<&str> = runs.iter().map(Digest::as_str).collect();
        self.transact(|t| {
            // Whoever keeps a text at the same time has ended before, or keeps it anew.
            t.execute("LOCK TABLE artefacts IN SHARE ROW EXCLUSIVE MODE", &[])?;
            t.execute(
                "DELETE FROM applied WHERE seq NOT IN
                   (SELECT seq FROM (SELECT seq, row_number() OVER
                      (PARTITION BY rollout_group ORDER BY seq DESC) AS place FROM applied) AS placed
                    WHERE place <= $1)",
                &[&limited(history)],
            )?;
            // What was submitted and not taken in names its text somewhere in its body.
            let forgotten = t.execute(
                "DELETE FROM artefacts AS a WHERE kind = 'pipeline' AND digest <> ALL ($1)
                 AND digest NOT IN
                   (SELECT digest FROM rollout_pins
                    UNION SELECT digest FROM applied UNION SELECT pipeline FROM offers
                    UNION SELECT targets FROM offers)
                 AND NOT EXISTS (SELECT 1 FROM rollout_inputs AS i
                   WHERE i.body IS NOT NULL AND position(a.digest IN i.body) > 0)
                 AND NOT EXISTS (SELECT 1 FROM rollouts AS r WHERE a.digest IN
                   (r.state::json ->> 'pending', r.state::json #>> '{candidate,revision}'))",
                &[&runs],
            )?;
            Ok(forgotten as usize)
        })
    }
}
