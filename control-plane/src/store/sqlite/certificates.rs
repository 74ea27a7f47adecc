//! Certificates in SQLite.

use rusqlite::{OptionalExtension, Row, params};

use super::SqliteStore;
use crate::store::{CertificateRecord, Certificates, StoreError};

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

impl Certificates for SqliteStore {
    fn keep_certificate(&self, c: &CertificateRecord) -> Result<(), StoreError> {
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

    fn certificates(&self) -> Result<Vec<CertificateRecord>, StoreError> {
        let connection = self.lock();
        let mut query =
            connection.prepare("SELECT * FROM certificates ORDER BY issued_ms, serial")?;
        let rows = query.query_map([], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn certificate(&self, serial: &str) -> Result<Option<CertificateRecord>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT * FROM certificates WHERE serial = ?1")?;
        Ok(query.query_row([serial], read).optional()?)
    }

    fn forget_certificates(&self, ended_before_ms: u64) -> Result<usize, StoreError> {
        self.transact(|t| {
            let sql = "DELETE FROM certificates WHERE ends_ms < ?1";
            Ok(t.execute(sql, [ended_before_ms as i64])?)
        })
    }
}
