//! One handle for SQLite and PostgreSQL. The only module that names a driver.
//!
//! One SQL text serves both: `$1`, `ON CONFLICT`, `RETURNING`, common table expressions and window
//! functions are common to them, column types are native on each side.

mod postgres;
mod sqlite;
mod value;

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use value::{FromRow, FromValue, Json, Row, Value, storable};

use crate::{Failure, Kind, Scope};

/// What a statement returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which database is behind a [`Db`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Embedded, one file.
    Sqlite,
    /// A server.
    Postgres,
}

/// Where the database is and how much of it to use at once.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite:PATH`, `sqlite::memory:` or `postgres://user:password@host:port/name`.
    pub url: String,
    /// Connections to PostgreSQL; reader threads on SQLite.
    pub pool_size: usize,
    /// How long to try to reach the server at start, with back-off, and how long a request waits
    /// for a connection.
    pub connect_timeout: Duration,
    /// A transaction whose owner says nothing for this long is undone, so that the others go on.
    pub idle_timeout: Duration,
    /// Whether what [`event::emit`](crate::event::emit) tells is kept.
    pub events: bool,
}

impl Default for Options {
    /// Fit for tests: a database in memory.
    fn default() -> Self {
        Self {
            url: "sqlite::memory:".to_owned(),
            pool_size: 4,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            events: true,
        }
    }
}

/// A handle on the database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    backend: Backend,
    events: bool,
}

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Db {
    /// Opens the database; PostgreSQL is tried again, with back-off, for `connect_timeout`.
    ///
    /// # Errors
    /// When the address is none, the file cannot be opened, or the server cannot be reached.
    pub async fn connect(options: &Options) -> Result<Self> {
        if let Some(path) = options.url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(Error::Address);
            }
            return sqlite::Sqlite::open(PathBuf::from(path), options)
                .map(|it| Self { backend: Backend::Sqlite(it), events: options.events });
        }
        if options.url.starts_with("postgres://") || options.url.starts_with("postgresql://") {
            return postgres::Postgres::connect(options)
                .await
                .map(|it| Self { backend: Backend::Postgres(it), events: options.events });
        }
        Err(Error::Address)
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        match &self.backend {
            Backend::Sqlite(_) => Dialect::Sqlite,
            Backend::Postgres(_) => Dialect::Postgres,
        }
    }

    /// A connection for statements that stand alone: reads, and writes of one statement.
    ///
    /// # Errors
    /// When no connection is free in time.
    pub async fn conn(&self) -> Result<Conn> {
        Ok(self.conn_of(match &self.backend {
            Backend::Sqlite(it) => ConnKind::Sqlite(it.clone()),
            Backend::Postgres(it) => ConnKind::Postgres(it.conn().await?),
        }))
    }

    /// The same, which waits behind no client: for the few statements on which others rely within
    /// seconds.
    ///
    /// # Errors
    /// When the database cannot be reached in time.
    pub async fn conn_aside(&self) -> Result<Conn> {
        Ok(self.conn_of(match &self.backend {
            Backend::Sqlite(it) => ConnKind::Sqlite(it.clone()),
            Backend::Postgres(it) => ConnKind::Postgres(it.conn_aside().await?),
        }))
    }

    fn conn_of(&self, kind: ConnKind) -> Conn {
        Conn { kind, events: self.events }
    }

    /// Does `work` in a transaction: all of it is committed when it succeeds, nothing when it fails
    /// or panics. What it reads is still true when it writes.
    ///
    /// SQLite has one writer, so two transactions queue, and `work` runs on the writer's thread: it
    /// must wait for nothing but its own statements. On PostgreSQL a statement whose answer decides
    /// a later write locks what it reads: see [`Conn::for_update`].
    ///
    /// # Errors
    /// Those of `work`, and when the database refuses. After `commit_unknown` nobody knows whether
    /// it was committed.
    pub async fn transaction<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        match &self.backend {
            Backend::Sqlite(it) => {
                let events = self.events;
                it.lend(move |lent| Tx::new(SessionKind::Lent(lent), events).run(work)).await?
            }
            Backend::Postgres(it) => {
                Tx::new(SessionKind::Postgres(it.begin().await?), self.events).run(work).await
            }
        }
    }

    /// Does `work`, which only reads, with one connection. On SQLite it runs on a reader's thread
    /// and sees one moment, on PostgreSQL each statement sees its own; it must wait for nothing but
    /// its statements.
    ///
    /// # Errors
    /// Those of `work`, and when the database refuses.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        match &self.backend {
            Backend::Sqlite(it) => {
                let events = self.events;
                it.lend_reader(move |lent| Tx::new(SessionKind::Lent(lent), events).run(work))
                    .await?
            }
            Backend::Postgres(it) => {
                work(&mut self.conn_of(ConnKind::Postgres(it.conn().await?))).await
            }
        }
    }

    /// A transaction that its owner steers statement by statement: for programs that copy many rows.
    /// [`Db::transaction`] costs less. Do not wait for anything but its own statements while it is
    /// open.
    ///
    /// # Errors
    /// When no connection is free in time.
    pub async fn begin(&self) -> Result<Tx> {
        let kind = match &self.backend {
            Backend::Sqlite(it) => SessionKind::Sqlite(it.begin().await?),
            Backend::Postgres(it) => SessionKind::Postgres(it.begin().await?),
        };
        Ok(Tx::new(kind, self.events))
    }

    /// A transaction to read in: all its statements see the database as it was at its beginning,
    /// and it keeps nobody from writing.
    ///
    /// # Errors
    /// When no connection is free in time.
    pub async fn snapshot(&self) -> Result<Tx> {
        let kind = match &self.backend {
            Backend::Sqlite(it) => SessionKind::Sqlite(it.snapshot().await?),
            Backend::Postgres(it) => SessionKind::Postgres(it.snapshot().await?),
        };
        Ok(Tx::new(kind, self.events))
    }

    /// Calls `heard` when another process says something on `channel` (see [`notify`]), and once when
    /// it begins to listen. Ends only by an error, such as a lost connection; on SQLite, where there
    /// is no other process, never.
    ///
    /// # Errors
    /// When the server cannot be reached, or goes away.
    pub async fn listen(&self, channel: &'static str, heard: impl Fn() + Send) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(_) => std::future::pending().await,
            Backend::Postgres(it) => it.listen(channel, heard).await,
        }
    }

    /// Waits until what is queued is written, and closes; statements of every handle are refused
    /// from then on.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Sqlite(it) => it.close().await,
            Backend::Postgres(it) => it.close(),
        }
    }
}

/// An open connection; what store functions take, so that they compose inside a transaction.
#[derive(Debug)]
pub struct Conn {
    kind: ConnKind,
    events: bool,
}

#[derive(Debug)]
enum ConnKind {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Client),
    Tx(Session),
}

/// Tells other processes, which [`Db::listen`] on `channel`, that there is something new; nothing on
/// SQLite. In a transaction they hear it after the commit.
///
/// # Errors
/// When the database refuses.
pub async fn notify(conn: &mut Conn, channel: &'static str) -> Result<()> {
    if conn.dialect() == Dialect::Postgres {
        query("SELECT 1 FROM (SELECT pg_notify($1, '')) AS said")
            .bind(channel)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// The inside of a transaction.
#[derive(Debug)]
struct Session {
    kind: SessionKind,
    /// PostgreSQL refuses everything after a statement that failed, SQLite does not: we do, so that
    /// nobody commits half of what was meant.
    failed: bool,
}

#[derive(Debug)]
enum SessionKind {
    /// On the writer's own thread.
    Lent(sqlite::Lent),
    Sqlite(sqlite::Session),
    Postgres(postgres::Session),
}

impl Session {
    async fn run(&mut self, query: Query) -> Result<Answer> {
        self.allow()?;
        let answer = match &self.kind {
            SessionKind::Lent(it) => it.run(&query),
            SessionKind::Sqlite(it) => it.run(query).await,
            SessionKind::Postgres(it) => it.run(query).await,
        };
        self.failed = answer.is_err();
        answer
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        self.allow()?;
        let done = match &self.kind {
            SessionKind::Lent(it) => it.batch(sql),
            SessionKind::Sqlite(it) => it.batch(sql.to_owned()).await,
            SessionKind::Postgres(it) => it.batch(sql).await,
        };
        self.failed = done.is_err();
        done
    }

    async fn commit(self) -> Result<()> {
        self.allow()?;
        match self.kind {
            SessionKind::Lent(it) => it.commit(),
            SessionKind::Sqlite(it) => it.commit().await,
            SessionKind::Postgres(it) => it.commit().await.map_err(|error| match error {
                Error::Connect(cause) => Error::CommitUnknown(cause),
                refused => refused,
            }),
        }
    }

    fn allow(&self) -> Result<()> {
        if self.failed { Err(Error::Aborted) } else { Ok(()) }
    }
}

impl Conn {
    /// For the few statements that truly differ.
    pub fn dialect(&self) -> Dialect {
        match &self.kind {
            ConnKind::Sqlite(_) => Dialect::Sqlite,
            ConnKind::Postgres(_) => Dialect::Postgres,
            ConnKind::Tx(it) => match it.kind {
                SessionKind::Lent(_) | SessionKind::Sqlite(_) => Dialect::Sqlite,
                SessionKind::Postgres(_) => Dialect::Postgres,
            },
        }
    }

    /// Whether what [`event::emit`](crate::event::emit) tells is kept.
    pub(crate) fn keeps_events(&self) -> bool {
        self.events
    }

    /// The end of a `SELECT` whose rows are about to be changed: PostgreSQL locks them, SQLite has
    /// one writer anyway.
    pub fn for_update(&self) -> &'static str {
        match self.dialect() {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE",
        }
    }

    /// Holds a lock by name until the transaction ends, for rules that are about many rows.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn exclusive(&mut self, name: &str) -> Result<()> {
        // SQLite's transactions are exclusive as they are.
        if self.dialect() == Dialect::Postgres {
            query("SELECT 1 FROM (SELECT pg_advisory_xact_lock(hashtextextended($1, 0))) AS held")
                .bind(name)
                .execute(self)
                .await?;
        }
        Ok(())
    }

    async fn run(&mut self, query: Query) -> Result<Answer> {
        match &mut self.kind {
            ConnKind::Sqlite(it) => it.run(query).await,
            ConnKind::Postgres(it) => it.run(query).await,
            ConnKind::Tx(it) => it.run(query).await,
        }
    }
}

/// A transaction; undone when dropped without [`Tx::commit`].
///
/// After a statement that failed it refuses every other one, and the commit as well.
#[derive(Debug)]
pub struct Tx(Conn);

impl Tx {
    fn new(kind: SessionKind, events: bool) -> Self {
        Self(Conn { kind: ConnKind::Tx(Session { kind, failed: false }), events })
    }

    async fn run<T>(
        mut self,
        work: impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let value = work(&mut self.0).await?;
        self.commit().await?;
        Ok(value)
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When the database refuses: nothing was written then. When the connection is lost meanwhile
    /// ([`Error::CommitUnknown`]) nobody knows.
    pub async fn commit(self) -> Result<()> {
        match self.0.kind {
            ConnKind::Tx(it) => it.commit().await,
            ConnKind::Sqlite(_) | ConnKind::Postgres(_) => Err(Error::Swapped),
        }
    }

    /// Runs several statements without parameters, such as a migration.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        match &mut self.0.kind {
            ConnKind::Tx(it) => it.batch(sql).await,
            ConnKind::Sqlite(_) | ConnKind::Postgres(_) => Err(Error::Swapped),
        }
    }
}

impl std::ops::Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl std::ops::DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}

/// A statement with its values.
#[derive(Debug)]
pub struct Query {
    sql: Cow<'static, str>,
    args: Vec<Value>,
    /// Whether SQLite's writer must run it.
    writes: bool,
    named: bool,
}

#[derive(Debug, Default)]
struct Answer {
    rows: Vec<Row>,
    affected: u64,
}

/// A statement that belongs to no tenant, such as a migration's; its values are `$1`, `$2`, … in the
/// order of [`Query::bind`]. Slices use [`scoped`].
pub fn query(sql: impl Into<Cow<'static, str>>) -> Query {
    let sql = sql.into();
    let reads = sql.starts_with("SELECT")
        || sql.starts_with("WITH")
            && !["INSERT INTO", "UPDATE ", "DELETE FROM"].iter().any(|it| sql.contains(it));
    let writes = !reads;
    Query { sql, args: Vec::new(), writes, named: false }
}

/// A statement about the rows of one tenant and service, which are `$1` and `$2`; [`Query::bind`]
/// goes on with `$3`. What slices use: a statement of theirs cannot be written without a scope.
pub fn scoped(scope: &Scope, sql: impl Into<Cow<'static, str>>) -> Query {
    query(sql).bind(scope.tenant()).bind(scope.service())
}

impl Query {
    /// The next value.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Several values.
    #[must_use]
    pub fn bind_all(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.args.extend(values);
        self
    }

    /// Keeps the names of the columns; see [`Row::into_columns`].
    #[must_use]
    pub fn with_names(mut self) -> Self {
        self.named = true;
        self
    }

    /// Runs it, and tells how many rows it touched.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn execute(self, conn: &mut Conn) -> Result<u64> {
        Ok(conn.run(self).await?.affected)
    }

    /// Every row.
    ///
    /// # Errors
    /// When the database refuses, or a row is not what the type expects.
    pub async fn fetch_all<T: FromRow>(self, conn: &mut Conn) -> Result<Vec<T>> {
        conn.run(self).await?.rows.into_iter().map(T::from_row).collect()
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// When the database refuses, or the row is not what the type expects.
    pub async fn fetch_optional<T: FromRow>(self, conn: &mut Conn) -> Result<Option<T>> {
        conn.run(self).await?.rows.into_iter().next().map(T::from_row).transpose()
    }

    /// The first row of a statement that always has one.
    ///
    /// # Errors
    /// When the database refuses, or there is no row.
    pub async fn fetch_one<T: FromRow>(self, conn: &mut Conn) -> Result<T> {
        self.fetch_optional(conn).await?.ok_or(Error::NoRow)
    }
}

/// What a database may answer instead of rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address names neither database.
    #[error("a database address starts with `sqlite:` or `postgres://`")]
    Address,
    /// The server or the file is out of reach.
    #[error("the database cannot be reached: {0}")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection was lost during a commit: it may have happened, or not.
    #[error("the database went away during a commit: {0}")]
    CommitUnknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No connection was free in time, or the queue of statements is full.
    #[error("the database is busy")]
    Busy,
    /// A statement of this transaction failed before, and nobody looked.
    #[error("a statement of this transaction failed before")]
    Aborted,
    /// Somebody put another connection into a transaction (`mem::swap`), which is a defect.
    #[error("the connection of this transaction was taken out of it")]
    Swapped,
    /// Two transactions changed the same row.
    #[error("another transaction changed this")]
    Serialization,
    /// A unique key is taken.
    #[error("a unique key is taken")]
    Unique,
    /// A row that is referred to does not exist.
    #[error("a row that is referred to does not exist")]
    ForeignKey,
    /// The disk is full.
    #[error("the disk that holds the database is full")]
    Full,
    /// The database cannot be written.
    #[error("the database cannot be written")]
    ReadOnly,
    /// A column is missing or of another type.
    #[error("column `{0}` is missing or of another type")]
    Column(&'static str),
    /// A row was expected.
    #[error("the statement has no row")]
    NoRow,
    /// The handle is closed.
    #[error("the database is closed")]
    Closed,
    /// Anything else.
    #[error("{0}")]
    Driver(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<Error> for Failure {
    fn from(it: Error) -> Self {
        match &it {
            Error::Serialization => Failure::conflict(
                "concurrent_change",
                "someone else changed this at the same moment, try again",
            ),
            Error::Busy => Failure::new(
                Kind::Unavailable,
                "storage_busy",
                "the database is busy, try again in a moment",
            ),
            Error::Connect(_) | Error::Closed => Failure::new(
                Kind::Unavailable,
                "storage_unreachable",
                "the database cannot be reached, try again in a moment",
            )
            .caused_by(it),
            Error::CommitUnknown(_) => Failure::new(
                Kind::Unavailable,
                "commit_unknown",
                "the database went away while this was written, and may have it or not: look before \
                 you try again",
            )
            .caused_by(it),
            Error::Full => Failure::new(
                Kind::Unavailable,
                "storage_full",
                "the disk is full: nothing was stored; free space and try again",
            )
            .caused_by(it),
            Error::ReadOnly => Failure::new(
                Kind::Unavailable,
                "storage_read_only",
                "the data directory cannot be written: nothing was stored; ask the operator",
            )
            .caused_by(it),
            Error::Unique => conflict("unique"),
            Error::ForeignKey => conflict("foreign_key"),
            _ => Failure::internal(it),
        }
    }
}

fn conflict(constraint: &'static str) -> Failure {
    Failure::conflict("data_conflict", "The request conflicts with existing data")
        .with_constraint(constraint)
}
