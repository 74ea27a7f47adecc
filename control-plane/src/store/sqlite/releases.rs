//! What was applied, and under which versions it was offered: the account of each text that agents may run.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::SqliteStore;
use crate::model::Digest;
use crate::store::StoreError;

/// The counter of versions.
const VERSION: &str = "version";
/// So many releases of a group are kept.
const RELEASES_MAX: i64 = 200;

/// A text that somebody applied to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// To which group.
    pub group: String,
    /// The text.
    pub digest: Digest,
    /// What was good in the group then.
    pub parent: Option<Digest>,
    /// What led to it.
    pub cause: String,
    /// Who did it.
    pub author: String,
    /// When, ms since the epoch of the wall clock.
    pub at_ms: u64,
}

/// An offer of a text, under a version that no other offer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// Higher than that of each release before it, whatever group that was of.
    pub version: u64,
    /// To which group.
    pub group: String,
    /// The text.
    pub digest: Digest,
    /// The key of the command that led to it.
    pub cause: String,
    /// Which key signed it.
    pub key: String,
    /// The signature, as it is offered.
    pub signature: String,
    /// When, ms since the epoch of the wall clock.
    pub at_ms: u64,
}

impl SqliteStore {
    /// Keeps a text, and who applied it.
    ///
    /// # Errors
    /// What the database says; nothing was kept then. So of all methods.
    pub fn keep_applied(&self, body: &str, applied: &Applied) -> Result<(), StoreError> {
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

    /// What was applied to a group, the newest first.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_applied`].
    pub fn applied(&self, group: &str, limit: usize) -> Result<Vec<Applied>, StoreError> {
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

    /// Takes the next version, has it signed, and keeps that. On disk before it returns, whatever becomes of
    /// the machine: a version that was offered is never taken again.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_applied`].
    pub fn release(
        &self,
        draft: Release,
        sign: impl FnOnce(u64) -> String,
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
                params![release.group, RELEASES_MAX],
            )?;
            Ok(release)
        })
    }

    /// The releases of a group, the newest first.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_applied`].
    pub fn releases(&self, group: &str, limit: usize) -> Result<Vec<Release>, StoreError> {
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

    /// The newest version that was taken; 0 if none was.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_applied`].
    pub fn version(&self) -> Result<u64, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT value FROM counters WHERE name = ?1")?;
        let value: Option<i64> = query.query_row([VERSION], |row| row.get(0)).optional()?;
        Ok(value.unwrap_or(0) as u64)
    }

    /// The next version is above this one, and above each that was taken. The newest one that counts as taken.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_applied`].
    pub fn raise_version(&self, to: u64) -> Result<u64, StoreError> {
        self.durably(|t| raise(t, Some(to)))
    }

    /// Forgets texts that nobody needs: all but those that `runs` names, that a rollout holds or is to be
    /// told of, and the `history` newest applied to each group. How many that were.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_applied`].
    pub fn forget_texts(&self, runs: &[Digest], history: usize) -> Result<usize, StoreError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::model::Input;
    use crate::store::{Artefacts, RolloutStore, StepRecord};

    fn draft(group: &str, body: &str) -> Release {
        Release {
            version: 0,
            group: group.to_owned(),
            digest: Digest::of(body.as_bytes()),
            cause: "a/1/push/7".to_owned(),
            key: "k".to_owned(),
            signature: String::new(),
            at_ms: 5,
        }
    }

    fn apply(store: &SqliteStore, group: &str, body: &str) -> Digest {
        let applied = Applied {
            group: group.to_owned(),
            digest: Digest::of(body.as_bytes()),
            parent: Some(Digest::of(b"")),
            cause: "apply".to_owned(),
            author: "otto".to_owned(),
            at_ms: 7,
        };
        store.keep_applied(body, &applied).unwrap();
        assert_eq!(store.applied(group, 1).unwrap()[0], applied);
        applied.digest
    }

    /// Guarantee: no two releases have one version, over all groups and over restarts; one can only be raised.
    #[test]
    fn versions_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let open = || SqliteStore::open(&path).unwrap();
        let store = open();
        assert_eq!(store.version().unwrap(), 0);
        let next = |store: &SqliteStore, group| {
            let release = store.release(draft(group, "x"), |v| format!("sig {v}"));
            let release = release.unwrap();
            assert_eq!(release.signature, format!("sig {}", release.version));
            release.version
        };
        assert_eq!((next(&store, "a"), next(&store, "b")), (1, 2));
        drop(store);
        let store = open();
        assert_eq!(next(&store, "a"), 3);
        assert_eq!(store.raise_version(2).unwrap(), 3);
        assert_eq!(store.raise_version(40).unwrap(), 40);
        assert_eq!(next(&store, "b"), 41);
        let versions = |group| -> Vec<u64> {
            let all = store.releases(group, 10).unwrap();
            all.iter().map(|r| r.version).collect()
        };
        assert_eq!((versions("a"), versions("b")), (vec![3, 1], vec![41, 2]));
        for _ in 0..RELEASES_MAX {
            next(&store, "a");
        }
        let kept = store.releases("a", 1_000).unwrap();
        assert_eq!(kept.len(), RELEASES_MAX as usize);
        assert_eq!(versions("b"), [41, 2], "other groups keep theirs");
    }

    /// Guarantee: a text stays as long as an agent runs it, a rollout needs it or the history names it, and no longer.
    #[test]
    fn texts_that_nobody_needs_are_forgotten() {
        let store = SqliteStore::in_memory().unwrap();
        let old: Vec<_> = (0..50)
            .map(|i| apply(&store, "a", &format!("old {i}")))
            .collect();
        let other = apply(&store, "b", "other");
        let has = |digest: &Digest| store.artefact(digest).unwrap().is_some();
        // One runs, one is pinned, one is to be told of, one is next.
        let (runs, pinned, told, next) = (&old[0], &old[1], &old[2], &old[3]);
        store.lease("a", "me", 0, 1_000).unwrap();
        let record = StepRecord {
            epoch: 1,
            step: 1,
            at_ms: 1,
            phase: "idle".to_owned(),
            input: "tick".to_owned(),
        };
        let state = format!("{{\"pending\": \"{next}\"}}");
        let pins = [pinned.clone()];
        assert!(
            store
                .keep_rollout("a", &record, &state, &pins, None)
                .unwrap()
        );
        let revision = told.as_str().to_owned();
        let input = serde_json::to_string(&Input::Changed { revision }).unwrap();
        store.submit("a", "key", &input).unwrap();
        assert_eq!(
            store.forget_texts(std::slice::from_ref(runs), 10).unwrap(),
            36
        );
        for digest in [runs, pinned, told, next, &other, &old[40], &old[49]] {
            assert!(has(digest));
        }
        assert!(!has(&old[4]) && !has(&old[39]));
        assert_eq!(store.applied("a", 100).unwrap().len(), 10);
        assert_eq!(store.forget_texts(&[], 10).unwrap(), 1);
        assert!(!has(runs));
        // However many are applied, so many are there.
        for i in 0..200 {
            apply(&store, "a", &format!("new {i}"));
            store.forget_texts(&[], 10).unwrap();
        }
        let count: i64 = store
            .lock()
            .query_row("SELECT count(*) FROM artefacts", [], |r| r.get(0))
            .unwrap();
        assert_eq!(count, 10 + 3 + 1);
    }
}
