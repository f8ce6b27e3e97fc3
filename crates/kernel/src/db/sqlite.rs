//! SQLite: one thread writes, a few read.
//!
//! The writer commits single statements in groups, so that a burst of requests costs one commit;
//! nobody hears of success before that commit.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{self as channel, Sender};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, ToSql};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Answer, Error, Options, Query, Result, Row, Value};

/// Statements that may wait for a thread; more are answered with [`Error::Busy`].
const QUEUE: usize = 4096;
/// Single statements that share one commit.
const GROUP: usize = 128;
/// A snapshot keeps nobody from writing, so its owner may be silent for longer.
const SNAPSHOT_IDLE: Duration = Duration::from_secs(600);

type Reply<T> = oneshot::Sender<Result<T>>;

/// A handle on the threads.
#[derive(Clone, Debug)]
pub(super) struct Sqlite(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    path: PathBuf,
    writer: SyncSender<Write>,
    /// None when only one connection can see the database: one in memory.
    readers: Option<Sender<Read>>,
    idle: Duration,
    closed: AtomicBool,
}

/// What runs on one of the threads, with its connection.
type Loan = Box<dyn FnOnce(Lent) + Send>;

enum Read {
    One(Query, Reply<Answer>),
    Lend(Loan),
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Read")
    }
}

enum Write {
    One(Query, Reply<Answer>),
    Lend(Loan),
    Begin(Receiver<Step>, Reply<()>),
    Close(Reply<()>),
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Write")
    }
}

/// A thread's connection, on loan to a transaction that runs on that thread. Nobody else uses it
/// meanwhile, so the lock is never waited for.
#[derive(Debug)]
pub(super) struct Lent(Arc<Mutex<Connection>>);

#[derive(Debug)]
enum Step {
    Run(Query, Reply<Answer>),
    Batch(String, Reply<()>),
    Commit(Reply<()>),
}

impl Sqlite {
    /// Opens or makes the file, and starts the threads. They end with the last handle.
    pub(super) fn open(path: PathBuf, options: &Options) -> Result<Self> {
        let in_memory = path.as_os_str() == ":memory:";
        if !in_memory {
            make_file(&path).map_err(|it| Error::Connect(it.into()))?;
        }
        let writing =
            connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        // Write-ahead logging: readers see the last commit and never wait for the writer. A page
        // that is written often goes to the file once in 16 MB of log.
        writing
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 4000;")
            .map_err(classify)?;

        let readers = if in_memory { None } else { Some(start_readers(&path, options.pool_size)?) };
        let (writer, queue) = sync_channel(QUEUE);
        let idle = options.idle_timeout;
        let writing = Arc::new(Mutex::new(writing));
        start("sqlite-write", move || write_loop(&writing, &queue, idle))?;
        Ok(Self(Arc::new(Threads { path, writer, readers, idle, closed: AtomicBool::new(false) })))
    }

    pub(super) async fn run(&self, query: Query) -> Result<Answer> {
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let (reply, answer) = oneshot::channel();
        match &self.0.readers {
            Some(readers) if !query.writes => send_read(readers, Read::One(query, reply))?,
            _ => send(&self.0.writer, Write::One(query, reply))?,
        }
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Runs `work` on the writer's thread, in a transaction that [`Lent::commit`] ends.
    pub(super) async fn lend<T, F>(
        &self,
        work: impl FnOnce(Lent) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (loan, answer) = self.loan("BEGIN IMMEDIATE", work);
        send(&self.0.writer, Write::Lend(loan))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Runs `work` on a reader's thread, in a transaction that sees one moment.
    pub(super) async fn lend_reader<T, F>(
        &self,
        work: impl FnOnce(Lent) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let Some(readers) = &self.0.readers else { return self.lend(work).await };
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let (loan, answer) = self.loan("BEGIN", work);
        send_read(readers, Read::Lend(loan))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    fn loan<T, F>(
        &self,
        begin: &'static str,
        work: impl FnOnce(Lent) -> F + Send + 'static,
    ) -> (Loan, oneshot::Receiver<Result<T>>)
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (reply, answer) = oneshot::channel();
        let (runtime, idle) = (Handle::current(), self.0.idle);
        let run = move |lent: Lent| {
            // Whoever gave up waiting was not promised anything.
            if reply.is_closed() {
                return;
            }
            let begun = plain(&lent.0.lock(), begin).map_err(classify);
            let done = begun.and_then(|()| {
                let work =
                    || runtime.block_on(async { tokio::time::timeout(idle, work(lent)).await });
                match catch_unwind(AssertUnwindSafe(work)) {
                    Ok(done) => done.map_err(|_silent| Error::Busy),
                    Err(_) => Err(Error::Driver("a transaction panicked".into())),
                }
            });
            let _gone = reply.send(done);
        };
        (Box::new(run), answer)
    }

    pub(super) async fn begin(&self) -> Result<Session> {
        let (steps, receiver) = mpsc::channel();
        let (reply, ready) = oneshot::channel();
        send(&self.0.writer, Write::Begin(receiver, reply))?;
        ready.await.map_err(|_| Error::Closed)??;
        Ok(Session(steps))
    }

    /// A thread and a connection of its own, for a program that reads everything.
    pub(super) async fn snapshot(&self) -> Result<Session> {
        if self.0.readers.is_none() {
            return self.begin().await;
        }
        if self.0.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let (steps, receiver) = mpsc::channel();
        let (reply, ready) = oneshot::channel();
        let path = self.0.path.clone();
        start("sqlite-snapshot", move || match connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY) {
            // It begins with the first thing that is read.
            Ok(conn) => {
                let begin = "BEGIN; SELECT 1 FROM sqlite_master LIMIT 1";
                session(&conn, begin, SNAPSHOT_IDLE, &receiver, reply);
            }
            Err(error) => {
                let _gone = reply.send(Err(error));
            }
        })?;
        ready.await.map_err(|_| Error::Closed)??;
        Ok(Session(steps))
    }

    pub(super) async fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        let (reply, done) = oneshot::channel();
        if send(&self.0.writer, Write::Close(reply)).is_ok() {
            let _closed = done.await;
        }
    }
}

/// Makes the file if there is none, for its owner only, and its directory. SQLite would say no more
/// than that it cannot be opened, and open one that may not be written as if nothing were wrong.
fn make_file(path: &Path) -> std::io::Result<()> {
    use fs_err::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        fs_err::create_dir_all(parent)?;
    }
    let mut options = fs_err::OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path).map(drop)
}

fn start_readers(path: &Path, count: usize) -> Result<Sender<Read>> {
    let (sender, queue) = channel::bounded::<Read>(QUEUE);
    for _ in 0..count.max(1) {
        let reading = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let reading = Arc::new(Mutex::new(reading));
        let queue = queue.clone();
        start("sqlite-read", move || read_loop(&reading, &queue))?;
    }
    Ok(sender)
}

impl Lent {
    pub(super) fn run(&self, query: &Query) -> Result<Answer> {
        run(&self.0.lock(), query)
    }

    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        self.0.lock().execute_batch(sql).map_err(classify)
    }

    pub(super) fn commit(&self) -> Result<()> {
        plain(&self.0.lock(), "COMMIT").map_err(classify)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        undo(&self.0.lock());
    }
}

/// A connection in the hands of one transaction, a message for each statement.
#[derive(Debug)]
pub(super) struct Session(mpsc::Sender<Step>);

impl Session {
    pub(super) async fn run(&self, query: Query) -> Result<Answer> {
        self.ask(|reply| Step::Run(query, reply)).await
    }

    pub(super) async fn batch(&self, sql: String) -> Result<()> {
        self.ask(|reply| Step::Batch(sql, reply)).await
    }

    pub(super) async fn commit(self) -> Result<()> {
        self.ask(Step::Commit).await
    }

    /// A session that ended by itself was silent for too long.
    async fn ask<T>(&self, step: impl FnOnce(Reply<T>) -> Step) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.0.send(step(reply)).map_err(|_| Error::Busy)?;
        answer.await.map_err(|_| Error::Busy)?
    }
}

fn send<T>(queue: &SyncSender<T>, it: T) -> Result<()> {
    queue.try_send(it).map_err(|it| match it {
        TrySendError::Full(_) => Error::Busy,
        TrySendError::Disconnected(_) => Error::Closed,
    })
}

fn send_read(queue: &Sender<Read>, it: Read) -> Result<()> {
    queue.try_send(it).map_err(|it| match it {
        channel::TrySendError::Full(_) => Error::Busy,
        channel::TrySendError::Disconnected(_) => Error::Closed,
    })
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(body).map(drop).map_err(|it| Error::Connect(it.into()))
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    // Each connection stays on its thread.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|it| Error::Connect(it.into()))?;
    conn.busy_timeout(Duration::from_secs(5)).map_err(classify)?;
    conn.set_prepared_statement_cache_capacity(128);
    // Plans do not depend on the values bound, else many statements would be planned at each use.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(classify)?;
    conn.execute_batch(
        "PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -4096;",
    )
    .map_err(classify)?;
    Ok(conn)
}

fn read_loop(conn: &Arc<Mutex<Connection>>, queue: &channel::Receiver<Read>) {
    for read in queue {
        match read {
            Read::One(query, reply) if !reply.is_closed() => {
                let _gone = reply.send(run(&conn.lock(), &query));
            }
            Read::One(..) => {}
            Read::Lend(run) => run(Lent(Arc::clone(conn))),
        }
    }
}

fn write_loop(conn: &Arc<Mutex<Connection>>, queue: &Receiver<Write>, idle: Duration) {
    let mut next = queue.recv().ok();
    while let Some(write) = next.take() {
        match write {
            Write::One(query, reply) => next = group(&conn.lock(), queue, query, reply),
            Write::Lend(run) => run(Lent(Arc::clone(conn))),
            Write::Begin(steps, ready) => {
                session(&conn.lock(), "BEGIN IMMEDIATE", idle, &steps, ready);
            }
            Write::Close(reply) => {
                // What is in the log goes to the file, so that a copy of the file has everything.
                if let Err(error) = conn.lock().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
                    tracing::warn!(%error, "the database's log could not be emptied");
                }
                let _gone = reply.send(Ok(()));
                return;
            }
        }
        if next.is_none() {
            next = queue.recv().ok();
        }
    }
}

/// Runs single statements until the queue is empty, commits, and only then answers. Returns what
/// came next and is no single statement.
fn group(
    conn: &Connection,
    queue: &Receiver<Write>,
    query: Query,
    reply: Reply<Answer>,
) -> Option<Write> {
    if let Err(error) = plain(conn, "BEGIN IMMEDIATE").map_err(classify) {
        let _gone = reply.send(Err(error));
        return None;
    }
    let mut answers = Vec::new();
    let mut one = Some((query, reply));
    let mut next = None;
    while let Some((query, reply)) = one.take() {
        // Whoever gave up waiting was not promised anything.
        if !reply.is_closed() {
            // A statement that fails undoes itself and leaves the transaction as it was…
            answers.push((reply, run(conn, &query)));
        }
        // …except when SQLite gives all of it up, as it may when the disk is full.
        if conn.is_autocommit() || answers.len() >= GROUP {
            break;
        }
        match queue.try_recv() {
            Ok(Write::One(query, reply)) => one = Some((query, reply)),
            Ok(other) => next = Some(other),
            Err(_) => {}
        }
    }
    let committed = if conn.is_autocommit() {
        Err(answers.last().and_then(|it| it.1.as_ref().err()).map_or(Error::Aborted, again))
    } else {
        plain(conn, "COMMIT").map_err(classify)
    };
    if committed.is_err() {
        undo(conn);
    }
    for (reply, answer) in answers {
        let answer = match &committed {
            Ok(()) => answer,
            Err(error) => answer.and(Err(again(error))),
        };
        let _gone = reply.send(answer);
    }
    next
}

fn session(
    conn: &Connection,
    begin: &str,
    idle: Duration,
    steps: &Receiver<Step>,
    ready: Reply<()>,
) {
    let begun = conn.execute_batch(begin).map_err(classify);
    let failed = begun.is_err();
    if ready.send(begun).is_err() || failed {
        undo(conn);
        return;
    }
    loop {
        match steps.recv_timeout(idle) {
            Ok(Step::Run(query, reply)) => {
                let _gone = reply.send(run(conn, &query));
            }
            Ok(Step::Batch(sql, reply)) => {
                let _gone = reply.send(conn.execute_batch(&sql).map_err(classify));
            }
            Ok(Step::Commit(reply)) => {
                let committed = plain(conn, "COMMIT").map_err(classify);
                if committed.is_err() {
                    undo(conn);
                }
                let _gone = reply.send(committed);
                return;
            }
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {
                undo(conn);
                return;
            }
        }
    }
}

/// Ends a transaction that did not commit; a failed statement may already have ended it.
fn undo(conn: &Connection) {
    if !conn.is_autocommit()
        && let Err(error) = conn.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction could not be undone");
    }
}

/// A statement without values or rows, planned once.
fn plain(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.raw_execute().map(drop)
}

fn run(conn: &Connection, query: &Query) -> Result<Answer> {
    let mut statement = conn.prepare_cached(&query.sql).map_err(classify)?;
    bind(&mut statement, &query.args).map_err(classify)?;
    let columns = statement.column_count();
    if columns == 0 {
        let affected = statement.raw_execute().map_err(classify)?;
        return Ok(Answer { rows: Vec::new(), affected: affected as u64 });
    }
    let names = query
        .named
        .then(|| statement.column_names().map(ToOwned::to_owned).collect::<Arc<[String]>>());
    let mut rows = Vec::new();
    let mut cursor = statement.raw_query();
    while let Some(row) = cursor.next().map_err(classify)? {
        let mut values = Vec::with_capacity(columns);
        for column in 0..columns {
            values.push(read(row.get_ref(column).map_err(classify)?));
        }
        let mut row = Row::new(values);
        row.names.clone_from(&names);
        rows.push(row);
    }
    let affected = rows.len() as u64;
    Ok(Answer { rows, affected })
}

/// SQLite numbers `$2` by where it first stands, not by its digits, so each is bound by its name.
fn bind(statement: &mut CachedStatement<'_>, args: &[Value]) -> rusqlite::Result<()> {
    for index in 1..=statement.parameter_count() {
        let number =
            statement.parameter_name(index).and_then(|it| it.get(1..)?.parse::<usize>().ok());
        let value = number.and_then(|it| args.get(it.checked_sub(1)?)).unwrap_or(&Value::Null);
        statement.raw_bind_parameter(index, Bound(value))?;
    }
    Ok(())
}

struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Int(it) => ToSqlOutput::Borrowed(ValueRef::Integer(*it)),
            Value::Real(it) => ToSqlOutput::Borrowed(ValueRef::Real(*it)),
            Value::Text(it) => ToSqlOutput::Borrowed(ValueRef::Text(it.as_bytes())),
            Value::Bytes(it) => ToSqlOutput::Borrowed(ValueRef::Blob(it)),
            Value::Bool(it) => ToSqlOutput::Borrowed(ValueRef::Integer((*it).into())),
            Value::Time(it) => ToSqlOutput::from(it.to_string()),
        })
    }
}

fn read(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(it) => Value::Int(it),
        ValueRef::Real(it) => Value::Real(it),
        ValueRef::Text(it) => Value::Text(match std::str::from_utf8(it) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(it).into_owned(),
        }),
        ValueRef::Blob(it) => Value::Bytes(it.to_vec()),
    }
}

fn classify(error: rusqlite::Error) -> Error {
    let rusqlite::Error::SqliteFailure(code, _) = &error else {
        return Error::Driver(error.into());
    };
    match (code.code, code.extended_code) {
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Error::Busy,
        (ErrorCode::DiskFull, _) => Error::Full,
        (ErrorCode::ReadOnly, _) => Error::ReadOnly,
        // SQLite reports a failed write of a full or vanished disk as an I/O error.
        (
            ErrorCode::SystemIoFailure,
            rusqlite::ffi::SQLITE_IOERR_WRITE | rusqlite::ffi::SQLITE_IOERR_SHMSIZE,
        ) => Error::Full,
        (ErrorCode::CannotOpen, _) => Error::Connect(error.into()),
        (
            ErrorCode::ConstraintViolation,
            rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
        ) => Error::Unique,
        (ErrorCode::ConstraintViolation, rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => {
            Error::ForeignKey
        }
        _ => Error::Driver(error.into()),
    }
}

/// A commit's failure, told to each statement of its group.
fn again(error: &Error) -> Error {
    match error {
        Error::Busy => Error::Busy,
        Error::Full => Error::Full,
        Error::ReadOnly => Error::ReadOnly,
        other => Error::Driver(other.to_string().into()),
    }
}
