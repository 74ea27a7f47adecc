//! Certificates that were issued to agents.

use rusqlite::{OptionalExtension, Row, params};

use super::SqliteStore;
use crate::store::StoreError;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateRecord {
    /// Its number, in hexadecimal.
    pub serial: String,
    /// Of which agent.
    pub uid: String,
    /// SHA-256 of the request that it answered, in hexadecimal.
    pub request: String,
    /// Itself, PEM.
    pub pem: String,
    /// By whom the agent got it: the name of a token, of a person, or `certificate`.
    pub author: String,
    /// When it was made, ms since the epoch of the wall clock.
    pub issued_ms: u64,
    /// When it ends.
    pub ends_ms: u64,
    /// When it was shown first.
    pub used_ms: Option<u64>,
    /// When it was revoked.
    pub revoked_ms: Option<u64>,
}

impl CertificateRecord {
    /// Whether it is neither revoked nor at its end.
    pub fn counts(&self, now_ms: u64) -> bool {
        self.revoked_ms.is_none() && self.ends_ms > now_ms
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<CertificateRecord> {
    let time = |i: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(i)?.map(|t| t as u64));
    Ok(CertificateRecord {
        serial: row.get(0)?,
        uid: row.get(1)?,
        request: row.get(2)?,
        pem: row.get(3)?,
        author: row.get(4)?,
        issued_ms: time(5)?.unwrap_or(0),
        ends_ms: time(6)?.unwrap_or(0),
        used_ms: time(7)?,
        revoked_ms: time(8)?,
    })
}

impl SqliteStore {
    /// Keeps one, with what became of it. On disk before it returns, whatever becomes of the machine.
    ///
    /// # Errors
    /// What the database says; nothing was kept then. So of all methods.
    pub fn keep_certificate(&self, c: &CertificateRecord) -> Result<(), StoreError> {
        self.durably(|t| {
            t.execute(
                "INSERT INTO certificates VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (serial) DO UPDATE SET
                   used_ms = excluded.used_ms, revoked_ms = excluded.revoked_ms",
                params![
                    c.serial,
                    c.uid,
                    c.request,
                    c.pem,
                    c.author,
                    c.issued_ms as i64,
                    c.ends_ms as i64,
                    c.used_ms.map(|t| t as i64),
                    c.revoked_ms.map(|t| t as i64),
                ],
            )?;
            Ok(())
        })
    }

    /// All of them, the oldest first.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_certificate`].
    pub fn certificates(&self) -> Result<Vec<CertificateRecord>, StoreError> {
        let connection = self.lock();
        let mut query =
            connection.prepare("SELECT * FROM certificates ORDER BY issued_ms, serial")?;
        let rows = query.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_certificate`].
    pub fn certificate(&self, serial: &str) -> Result<Option<CertificateRecord>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT * FROM certificates WHERE serial = ?1")?;
        Ok(query.query_row([serial], read).optional()?)
    }

    /// Forgets those that ended before. How many that were.
    ///
    /// # Errors
    /// As [`SqliteStore::keep_certificate`].
    pub fn forget_certificates(&self, ended_before_ms: u64) -> Result<usize, StoreError> {
        self.transact(|t| {
            let sql = "DELETE FROM certificates WHERE ends_ms < ?1";
            Ok(t.execute(sql, [ended_before_ms as i64])?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_until_they_have_ended() {
        let store = SqliteStore::in_memory().unwrap();
        let one = |serial: &str, ends_ms| CertificateRecord {
            serial: serial.to_owned(),
            uid: "u".to_owned(),
            request: "r".to_owned(),
            pem: "p".to_owned(),
            author: "token".to_owned(),
            issued_ms: 1,
            ends_ms,
            used_ms: None,
            revoked_ms: None,
        };
        let (short, long) = (one("a", 10), one("b", 20));
        store.keep_certificate(&short).unwrap();
        store.keep_certificate(&long).unwrap();
        let revoked = CertificateRecord {
            used_ms: Some(3),
            revoked_ms: Some(4),
            ..short.clone()
        };
        store.keep_certificate(&revoked).unwrap();
        assert_eq!(
            store.certificates().unwrap(),
            [revoked.clone(), long.clone()]
        );
        assert_eq!(store.certificate("a").unwrap(), Some(revoked));
        assert_eq!(store.forget_certificates(11).unwrap(), 1);
        assert_eq!(store.certificates().unwrap(), [long]);
        assert_eq!(store.certificate("a").unwrap(), None);
    }
}
