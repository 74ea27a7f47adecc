//! What receivers of alerts know, in SQLite.

use rusqlite::OptionalExtension;

use super::SqliteStore;
use crate::store::{Notified, StoreError};

impl Notified for SqliteStore {
    fn notified(&self, receiver: &str) -> Result<Option<String>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT body FROM notified WHERE receiver = ?1")?;
        Ok(query.query_row([receiver], |row| row.get(0)).optional()?)
    }

    fn keep_notified(&self, receiver: &str, body: &str) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute(
                "INSERT INTO notified VALUES (?1, ?2)
                 ON CONFLICT (receiver) DO UPDATE SET body = excluded.body",
                [receiver, body],
            )?;
            Ok(())
        })
    }
}
