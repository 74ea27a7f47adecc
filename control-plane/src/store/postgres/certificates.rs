//! Certificates in PostgreSQL.

use postgres::Row;

use super::{PostgresStore, Trouble, signed, unsigned};
use crate::store::{CertificateRecord, Certificates, StoreError};

/// All columns, as `read` takes them.
const ALL: &str =
    "SELECT serial, uid, request, pem, author, issued_ms, ends_ms, used_ms, revoked_ms
    FROM certificates ORDER BY issued_ms, serial";
const ONE: &str =
    "SELECT serial, uid, request, pem, author, issued_ms, ends_ms, used_ms, revoked_ms
    FROM certificates WHERE serial = $1";

fn read(row: &Row) -> Result<CertificateRecord, Trouble> {
    let time = |column| Ok::<_, Trouble>(row.try_get::<_, Option<i64>>(column)?.map(|t| t as u64));
    Ok(CertificateRecord {
        serial: row.try_get(0)?,
        uid: row.try_get(1)?,
        request: row.try_get(2)?,
        pem: row.try_get(3)?,
        author: row.try_get(4)?,
        issued_ms: unsigned(row, 5)?,
        ends_ms: unsigned(row, 6)?,
        used_ms: time(7)?,
        revoked_ms: time(8)?,
    })
}

impl Certificates for PostgresStore {
    fn keep_certificate(&self, c: &CertificateRecord) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute(
                "INSERT INTO certificates
                   (serial, uid, request, pem, author, issued_ms, ends_ms, used_ms, revoked_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                 ON CONFLICT (serial) DO UPDATE SET
                   used_ms = excluded.used_ms, revoked_ms = excluded.revoked_ms",
                &[
                    &c.serial,
                    &c.uid,
                    &c.request,
                    &c.pem,
                    &c.author,
                    &signed(c.issued_ms),
                    &signed(c.ends_ms),
                    &c.used_ms.map(signed),
                    &c.revoked_ms.map(signed),
                ],
            )?;
            Ok(())
        })
    }

    fn certificates(&self) -> Result<Vec<CertificateRecord>, StoreError> {
        self.transact(|t| t.rows(ALL, &[])?.iter().map(read).collect())
    }

    fn certificate(&self, serial: &str) -> Result<Option<CertificateRecord>, StoreError> {
        self.transact(|t| t.row(ONE, &[&serial])?.as_ref().map(read).transpose())
    }

    fn forget_certificates(&self, ended_before_ms: u64) -> Result<usize, StoreError> {
        self.transact(|t| {
            let sql = "DELETE FROM certificates WHERE ends_ms < $1";
            Ok(t.execute(sql, &[&signed(ended_before_ms)])? as usize)
        })
    }
}
