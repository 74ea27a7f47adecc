//! The store of several machines: PostgreSQL, in a schema of its own.
//!
//! One connection, one transaction at a time. A connection that is found dead is made anew before anything was done over
//! it, so nothing is done twice; one that is lost in a transaction is an error, and what to do is the caller's
//! to say. Transactions that meet those of another process are serialised by locks, and carried out again where the server
//! asks for that.
//!
//! Leases go by the clock of the database, so clocks of control planes may differ. Places of events and inputs are given
//! under a lock: one that is seen is never followed by a smaller one. Source of what locks do: the manual of PostgreSQL,
//! "Explicit Locking" and "Transaction Isolation" (READ COMMITTED).

mod address;
mod certificates;
mod notified;
mod registry;
mod releases;
mod rollouts;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Row, Statement, Transaction};

use super::{Artefacts, AuditRows, StoreError};
use crate::model::Digest;

pub use address::Address;

/// The schema that holds all tables.
const SCHEMA: &str = "tailwater_control";
/// What brings a schema from each version to the next. Never changed once it was released: a change is one more.
const MIGRATIONS: &[&str] = &[
    include_str!("postgres/1.sql"),
    include_str!("postgres/2.sql"),
    include_str!("postgres/3.sql"),
];
/// Held while a schema is brought up to date: whoever comes meanwhile waits. An arbitrary number.
const MIGRATION_LOCK: i64 = 0x7461_696c_7761_7465;
/// After a failed attempt to connect, others fail at once for so long.
const PAUSE: Duration = Duration::from_millis(500);
/// So often a transaction is carried out, if the server asks for that.
const ATTEMPTS_MAX: u32 = 5;
/// So many lines of the audit log are kept.
const AUDIT_MAX: i64 = 500_000;

/// What each connection is set to. A server that is set to answer before its disk has it is asked not to.
const SESSION: &str = "SET search_path = tailwater_control;
    SET statement_timeout = '30s';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '30s';
    SET client_min_messages = warning;
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// See the module's documentation.
pub struct PostgresStore {
    address: Address,
    session: Mutex<Session>,
    /// Leases go by the clock of whoever asks, for tests.
    callers_clock: bool,
}

#[derive(Default)]
struct Session {
    open: Option<Open>,
    /// When connecting failed last, and what was said.
    failed: Option<(Instant, String)>,
}

struct Open {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

/// Why a transaction was not carried out.
enum Trouble {
    /// It did not begin: nothing was done.
    NotBegun(postgres::Error),
    /// What the server says in its middle.
    Sql(postgres::Error),
    /// It is not known whether it was kept.
    Commit(postgres::Error),
    /// Of the store's own.
    Said(StoreError),
}

impl From<postgres::Error> for Trouble {
    fn from(error: postgres::Error) -> Trouble {
        Trouble::Sql(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Said(error)
    }
}

/// A transaction. Statements are prepared once for each connection.
struct Tx<'a> {
    inner: Transaction<'a>,
    statements: &'a mut HashMap<&'static str, Statement>,
}

type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

impl Tx<'_> {
    fn prepared(&mut self, sql: &'static str) -> Result<Statement, Trouble> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.inner.prepare(sql)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    /// How many rows it changed.
    fn execute(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64, Trouble> {
        let statement = self.prepared(sql)?;
        Ok(self.inner.execute(&statement, params)?)
    }

    fn rows(&mut self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Trouble> {
        let statement = self.prepared(sql)?;
        Ok(self.inner.query(&statement, params)?)
    }

    fn row(&mut self, sql: &'static str, params: Params<'_>) -> Result<Option<Row>, Trouble> {
        let statement = self.prepared(sql)?;
        Ok(self.inner.query_opt(&statement, params)?)
    }

    /// The first column of the only row, if there is one.
    fn value<T>(&mut self, sql: &'static str, params: Params<'_>) -> Result<Option<T>, Trouble>
    where
        T: for<'r> postgres::types::FromSql<'r>,
    {
        let row = self.row(sql, params)?;
        Ok(row.map(|r| r.try_get(0)).transpose()?)
    }
}

impl PostgresStore {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// The server cannot be reached, refuses, or a newer program made its schema.
    pub fn open(address: Address) -> Result<PostgresStore, StoreError> {
        PostgresStore::with_clock(address, false)
    }

    fn with_clock(address: Address, callers_clock: bool) -> Result<PostgresStore, StoreError> {
        let store = PostgresStore {
            address,
            session: Mutex::default(),
            callers_clock,
        };
        store.transact(|_| Ok(()))?;
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        // A transaction that a panic left is rolled back.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transact<T: Send>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Trouble> + Sync,
    ) -> Result<T, StoreError> {
        outside_of_runtimes(|| self.attempt(&work))
    }

    fn attempt<T>(
        &self,
        work: &impl Fn(&mut Tx<'_>) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let mut session = self.lock();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let is_new = session.open.is_none();
            let open = self.connected(&mut session)?;
            let trouble = match open.transact(work) {
                Ok(done) => return Ok(done),
                Err(Trouble::Said(error)) => return Err(error),
                Err(trouble) => trouble,
            };
            let (error, may_be_kept) = match &trouble {
                Trouble::Commit(error) => (error, true),
                Trouble::NotBegun(error) | Trouble::Sql(error) => (error, false),
                Trouble::Said(_) => continue,
            };
            let is_lost = open.client.is_closed() || is_lost(error);
            let again = match &trouble {
                // The connection had died since it was used last.
                Trouble::NotBegun(_) => is_lost && !is_new,
                _ => !is_lost && is_conflict(error),
            };
            let mut text = self.said(error);
            if is_lost {
                session.open = None;
                if may_be_kept {
                    text += "; the connection was lost while it was kept, so it may be kept or not";
                }
            }
            if !again || attempts == ATTEMPTS_MAX {
                return Err(self.error(text));
            }
        }
    }

    fn connected<'s>(&self, session: &'s mut Session) -> Result<&'s mut Open, StoreError> {
        if session.open.is_none() {
            if let Some((at, text)) = &session.failed
                && at.elapsed() < PAUSE
            {
                return Err(self.error(text.clone()));
            }
            match self.connect() {
                Ok(open) => {
                    session.failed = None;
                    session.open = Some(open);
                }
                Err(error) => {
                    let text = match &error {
                        StoreError::Server { text, .. } => text.clone(),
                        other => other.to_string(),
                    };
                    session.failed = Some((Instant::now(), text));
                    return Err(error);
                }
            }
        }
        session
            .open
            .as_mut()
            .ok_or_else(|| self.error("is not connected".to_owned()))
    }

    fn connect(&self) -> Result<Open, StoreError> {
        let failed = |e: postgres::Error| self.error(self.said(&e));
        let mut client = self.address.connect().map_err(failed)?;
        client.batch_execute(SESSION).map_err(failed)?;
        match migrate(&mut client) {
            Ok(()) => {}
            Err(Trouble::Said(error)) => return Err(error),
            Err(Trouble::NotBegun(e) | Trouble::Sql(e) | Trouble::Commit(e)) => {
                return Err(failed(e));
            }
        }
        Ok(Open {
            client,
            statements: HashMap::new(),
        })
    }

    fn error(&self, text: String) -> StoreError {
        StoreError::Server {
            server: self.address.to_string(),
            text,
        }
    }

    /// What went wrong, for people. No password is in what the server or the library says.
    fn said(&self, error: &postgres::Error) -> String {
        let user = self.address.user();
        let Some(db) = error.as_db_error() else {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text += &format!(": {cause}");
                source = cause.source();
            }
            return text;
        };
        let remedy = match db.code() {
            c if *c == SqlState::INVALID_PASSWORD
                || *c == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                format!(
                    "; the user {user} or its password is wrong, or pg_hba.conf does not let it in from here"
                )
            }
            c if *c == SqlState::INVALID_CATALOG_NAME => {
                "; make it with CREATE DATABASE, or name another one".to_owned()
            }
            c if *c == SqlState::INSUFFICIENT_PRIVILEGE => format!(
                "; the user {user} needs CREATE on the database at the first start, and all rights in the schema {SCHEMA}"
            ),
            c if *c == SqlState::READ_ONLY_SQL_TRANSACTION => {
                "; this is a standby: name all hosts, and target_session_attrs=read-write"
                    .to_owned()
            }
            _ => String::new(),
        };
        format!("{} ({}){remedy}", db.message(), db.code().code())
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        let open = self.lock().open.take();
        // The connection has a runtime of its own, which must not end within another.
        outside_of_runtimes(|| drop(open));
    }
}

impl Open {
    fn transact<T>(
        &mut self,
        work: &impl Fn(&mut Tx<'_>) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut tx = Tx {
            inner: self.client.transaction().map_err(Trouble::NotBegun)?,
            statements: &mut self.statements,
        };
        let done = work(&mut tx)?;
        tx.inner.commit().map_err(Trouble::Commit)?;
        Ok(done)
    }
}

/// Where this thread is one of a runtime, on another one: the client waits in a runtime of its own.
fn outside_of_runtimes<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Whether the connection is of no use any more.
fn is_lost(error: &postgres::Error) -> bool {
    match error.code() {
        None => error.is_closed() || error.source().is_some_and(|s| s.is::<std::io::Error>()),
        Some(code) => {
            // Class 08 is about connections, 57P01 to 57P05 say that the server ends them.
            code.code().starts_with("08") || code.code().starts_with("57P0")
        }
    }
}

/// Whether it is to be carried out again: it met another one.
fn is_conflict(error: &postgres::Error) -> bool {
    let code = error.code();
    code.is_some_and(|c| {
        *c == SqlState::T_R_SERIALIZATION_FAILURE || *c == SqlState::T_R_DEADLOCK_DETECTED
    })
}

/// Brings the schema up to date, all versions or none.
fn migrate(client: &mut Client) -> Result<(), Trouble> {
    let known = MIGRATIONS.len() as u32;
    // Mostly there is nothing to do, and no right to make anything is needed.
    if version(client)? == Some(known) {
        return Ok(());
    }
    let mut t = client.transaction()?;
    t.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])?;
    let found = match version(&mut t)? {
        Some(found) => found,
        None => {
            t.batch_execute(
                "CREATE SCHEMA IF NOT EXISTS tailwater_control;
                 CREATE TABLE schema_version (version INTEGER NOT NULL);
                 INSERT INTO schema_version VALUES (0)",
            )?;
            0
        }
    };
    if found > known {
        return Err(StoreError::TooNew { found, known }.into());
    }
    for sql in MIGRATIONS.iter().skip(found as usize) {
        t.batch_execute(sql)?;
    }
    t.execute("UPDATE schema_version SET version = $1", &[&(known as i32)])?;
    t.commit().map_err(Trouble::Commit)?;
    if found < known {
        tracing::info!("the schema of the database has version {known} now; it had {found}");
    }
    Ok(())
}

/// The version of the schema; none if there is no schema.
fn version(client: &mut impl postgres::GenericClient) -> Result<Option<u32>, Trouble> {
    // Of rows, and not by a name: what is known of names may be older than a lock that was waited for.
    let there = client.query_one(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables
           WHERE schemaname = 'tailwater_control' AND tablename = 'schema_version')",
        &[],
    )?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client.query_opt("SELECT version FROM tailwater_control.schema_version", &[])?;
    let row = row.ok_or_else(|| super::damaged("its version is missing"))?;
    let version = u32::try_from(row.try_get::<_, i32>(0)?).map_err(super::damaged)?;
    Ok(Some(version))
}

/// Of a column that holds no negative number.
fn unsigned(row: &Row, column: usize) -> Result<u64, Trouble> {
    Ok(row.try_get::<_, i64>(column)? as u64)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn limited(limit: usize) -> i64 {
    signed(limit as u64)
}

impl Artefacts for PostgresStore {
    fn put_artefact(&self, kind: &str, digest: &Digest, body: &str) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute(
                "INSERT INTO artefacts (digest, kind, body) VALUES ($1, $2, $3)
                 ON CONFLICT (digest) DO NOTHING",
                &[&digest.as_str(), &kind, &body],
            )?;
            Ok(())
        })
    }

    fn artefact(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        self.transact(|t| {
            let sql = "SELECT body FROM artefacts WHERE digest = $1";
            t.value(sql, &[&digest.as_str()])
        })
    }
}

impl AuditRows for PostgresStore {
    fn keep_audit(&self, at_ms: u64, line: &str) -> Result<(), StoreError> {
        self.transact(|t| {
            let sql = "INSERT INTO audit (at_ms, body) VALUES ($1, $2) RETURNING seq";
            let seq: Option<i64> = t.value(sql, &[&signed(at_ms), &line])?;
            let over = seq.unwrap_or(0) - AUDIT_MAX;
            t.execute("DELETE FROM audit WHERE seq <= $1", &[&over])?;
            Ok(())
        })
    }

    fn audit(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        self.transact(|t| {
            let sql = "SELECT body FROM audit ORDER BY seq DESC LIMIT $1";
            let rows = t.rows(sql, &[&limited(limit)])?;
            let bodies = rows.iter().map(|row| Ok(row.try_get(0)?));
            bodies.collect()
        })
    }
}
