//! What receivers of alerts know, in PostgreSQL.

use super::PostgresStore;
use crate::store::{Notified, StoreError};

impl Notified for PostgresStore {
    fn notified(&self, receiver: &str) -> Result<Option<String>, StoreError> {
        self.transact(|t| {
            let sql = "SELECT body FROM notified WHERE receiver = $1";
            t.value(sql, &[&receiver])
        })
    }

    fn keep_notified(&self, receiver: &str, body: &str) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute(
                "INSERT INTO notified (receiver, body) VALUES ($1, $2)
                 ON CONFLICT (receiver) DO UPDATE SET body = excluded.body",
                &[&receiver, &body],
            )?;
            Ok(())
        })
    }
}
