//! PostgreSQL through a pool of connections.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Answer, Error, Options, Query, Result, Row, Value};
use crate::Time;

/// From 1970 to 2000, where PostgreSQL begins to count, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;
/// 4713 BC from there, the first instant of its calendar.
const FIRST: i64 = -211_813_488_000_000_000;

/// Statements that a connection keeps prepared: their texts are put together from what clients ask
/// for, so there is no end to them.
const PREPARED: usize = 256;

/// `sslmode=require` in the address means TLS with a certificate that this machine trusts; without
/// it the connection is plain, as on a network of one's own.
fn manager(config: tokio_postgres::Config) -> Result<Manager> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    if config.get_ssl_mode() != SslMode::Require {
        return Ok(Manager::from_config(config, NoTls, recycling));
    }
    Ok(Manager::from_config(config, tls()?, recycling))
}

fn tls() -> Result<MakeRustlsConnect> {
    let (tls, _unreadable) = MakeRustlsConnect::with_native_certs().map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Error::Connect(
            format!("the machine's certificates cannot be read: {}", errors.join("; ")).into(),
        )
    })?;
    Ok(tls)
}

/// A server that vanished without a word, with its machine or behind a wall, would otherwise keep our
/// connections for hours.
fn give_up_on_silence(config: &mut tokio_postgres::Config) {
    const PATIENCE: Duration = Duration::from_secs(30);
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(PATIENCE);
    }
    config.keepalives_idle(config.get_keepalives_idle().min(PATIENCE));
}

#[derive(Clone)]
pub(super) struct Postgres {
    pool: Pool,
    /// One connection that no client has.
    aside: Pool,
    config: Arc<tokio_postgres::Config>,
    idle: Duration,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Postgres").field(&self.pool.status()).finish()
    }
}

impl Postgres {
    pub(super) async fn connect(options: &Options) -> Result<Self> {
        let mut config: tokio_postgres::Config =
            options.url.parse().map_err(|it: tokio_postgres::Error| out_of_reach(&it))?;
        give_up_on_silence(&mut config);
        let pool = |size: usize| -> Result<Pool> {
            Pool::builder(manager(config.clone())?)
                .max_size(size)
                .runtime(Runtime::Tokio1)
                .timeouts(Timeouts {
                    wait: Some(options.connect_timeout),
                    create: Some(options.connect_timeout),
                    recycle: Some(Duration::from_secs(5)),
                })
                .build()
                .map_err(|it| out_of_reach(&it))
        };
        let (pool, aside) = (pool(options.pool_size.max(1))?, pool(1)?);
        let it = Self { pool, aside, config: Arc::new(config), idle: options.idle_timeout };
        it.reach(options.connect_timeout).await?;
        Ok(it)
    }

    /// Tries until the server answers: it may start at the same time as we do.
    async fn reach(&self, patience: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(50);
        loop {
            match self.pool.get().await {
                Ok(_) => return Ok(()),
                // Waiting does not make a password right.
                Err(error) if is_refusal(&error) => return Err(out_of_reach(&error)),
                Err(error) if tokio::time::Instant::now() + pause >= deadline => {
                    return Err(out_of_reach(&error));
                }
                Err(error) => {
                    let error = told(&error);
                    tracing::warn!(error, "the database does not answer yet, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    pub(super) async fn conn(&self) -> Result<Client> {
        take(&self.pool).await
    }

    pub(super) async fn conn_aside(&self) -> Result<Client> {
        take(&self.aside).await
    }

    /// Calls `heard` for whatever is said on `channel`, over a connection of its own, until that ends.
    pub(super) async fn listen(&self, channel: &str, heard: impl Fn() + Send) -> Result<()> {
        let config = &self.config;
        if config.get_ssl_mode() == SslMode::Require {
            let (client, connection) = config.connect(tls()?).await.map_err(classify)?;
            return follow(client, connection, channel, heard).await;
        }
        let (client, connection) = config.connect(NoTls).await.map_err(classify)?;
        follow(client, connection, channel, heard).await
    }

    pub(super) async fn begin(&self) -> Result<Session> {
        self.session("BEGIN").await
    }

    pub(super) async fn snapshot(&self) -> Result<Session> {
        self.session("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn session(&self, begin: &str) -> Result<Session> {
        // Made before the first wait: when the caller gives up meanwhile, it is undone.
        let session = Session { client: self.conn().await?, open: true };
        let idle = self.idle.as_millis();
        let sql = format!("{begin}; SET LOCAL idle_in_transaction_session_timeout = {idle}");
        session.client.batch(&sql).await?;
        Ok(session)
    }

    pub(super) fn close(&self) {
        self.pool.close();
        self.aside.close();
    }
}

async fn follow<S, T>(
    client: tokio_postgres::Client,
    mut connection: tokio_postgres::Connection<S, T>,
    channel: &str,
    heard: impl Fn() + Send,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
    let sql = format!("LISTEN {channel}");
    let mut listening = pin!(client.batch_execute(&sql).fuse());
    loop {
        tokio::select! {
            listens = &mut listening => {
                listens.map_err(classify)?;
                // Something may have been said before.
                heard();
            }
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(_))) => heard(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(classify(error)),
                None => return Err(Error::Closed),
            },
        }
    }
}

/// A connection of the pool, which goes back to it unless it turned out to be dead.
pub(super) struct Client {
    object: Option<Box<Object>>,
    lost: AtomicBool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    fn new(object: Object) -> Self {
        Self { object: Some(Box::new(object)), lost: AtomicBool::new(false) }
    }

    fn object(&self) -> &Object {
        self.object.as_ref().expect("it is taken out only when the client is dropped")
    }

    pub(super) async fn run(&self, query: Query) -> Result<Answer> {
        self.watch(self.ask(query).await)
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        self.watch(self.object().batch_execute(sql).await.map_err(classify))
    }

    fn watch<T>(&self, answer: Result<T>) -> Result<T> {
        if matches!(answer, Err(Error::Connect(_))) {
            self.lost.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn ask(&self, query: Query) -> Result<Answer> {
        let client = self.object();
        if client.statement_cache.size() >= PREPARED {
            client.statement_cache.clear();
        }
        let statement = client.prepare_cached(&query.sql).await.map_err(classify)?;
        let args: Vec<&(dyn ToSql + Sync)> =
            query.args.iter().map(|it| it as &(dyn ToSql + Sync)).collect();
        if statement.columns().is_empty() {
            let affected = client.execute(&statement, &args).await.map_err(classify)?;
            return Ok(Answer { rows: Vec::new(), affected });
        }
        let names = query.named.then(|| {
            statement.columns().iter().map(|it| it.name().to_owned()).collect::<Arc<[String]>>()
        });
        let found = client.query(&statement, &args).await.map_err(classify)?;
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            let values =
                (0..row.len()).map(|it| row.try_get(it)).collect::<std::result::Result<_, _>>();
            let mut row = Row::new(values.map_err(classify)?);
            row.names.clone_from(&names);
            rows.push(row);
        }
        let affected = rows.len() as u64;
        Ok(Answer { rows, affected })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if *self.lost.get_mut() {
            // The next one in line would meet the same end.
            let _dead = self.object.take().map(|it| Object::take(*it));
        }
    }
}

/// A transaction on a connection of its own.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    open: bool,
}

impl Session {
    pub(super) async fn run(&self, query: Query) -> Result<Answer> {
        self.client.run(query).await
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        self.client.batch(sql).await
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        self.client.batch("COMMIT").await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Session {
    /// Undoes it without waiting: the command is on its way before the connection is back in the
    /// pool, and whoever takes it next speaks after it.
    fn drop(&mut self) {
        if self.open {
            let _sent = self.client.object().batch_execute("ROLLBACK").now_or_never();
        }
    }
}

/// The error and what caused it: the driver's own text stops at "db error".
fn told(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        let more = it.to_string();
        // Some repeat their cause in their own text.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = it.source();
    }
    text
}

fn out_of_reach(error: &(dyn StdError + 'static)) -> Error {
    Error::Connect(told(error).into())
}

/// Whether the server is there and does not want us.
async fn take(pool: &Pool) -> Result<Client> {
    pool.get().await.map(Client::new).map_err(|it| match it {
        PoolError::Timeout(TimeoutType::Wait) => Error::Busy,
        PoolError::Closed => Error::Closed,
        other => out_of_reach(&other),
    })
}

fn is_refusal(error: &PoolError) -> bool {
    let PoolError::Backend(error) = error else { return false };
    error.code().is_some_and(|it| it.code().starts_with("28"))
}

fn classify(error: tokio_postgres::Error) -> Error {
    if error.is_closed() {
        return out_of_reach(&error);
    }
    match error.code() {
        Some(it) if *it == SqlState::T_R_SERIALIZATION_FAILURE => Error::Serialization,
        Some(it) if *it == SqlState::T_R_DEADLOCK_DETECTED => Error::Serialization,
        Some(it) if *it == SqlState::UNIQUE_VIOLATION => Error::Unique,
        Some(it) if *it == SqlState::FOREIGN_KEY_VIOLATION => Error::ForeignKey,
        Some(it) if *it == SqlState::DISK_FULL => Error::Full,
        Some(it) if *it == SqlState::READ_ONLY_SQL_TRANSACTION => Error::ReadOnly,
        Some(it) if *it == SqlState::IN_FAILED_SQL_TRANSACTION => Error::Aborted,
        // A transaction that was silent for too long, as on SQLite.
        Some(it) if *it == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Error::Busy,
        // 57P01 to 57P03: shutting down, crashed, starting up.
        Some(it) if it.code().starts_with("57P") || it.code().starts_with("08") => {
            out_of_reach(&error)
        }
        None if StdError::source(&error).is_some_and(|it| it.is::<std::io::Error>()) => {
            out_of_reach(&error)
        }
        _ => Error::Driver(told(&error).into()),
    }
}

type BoxError = Box<dyn StdError + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, BoxError> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(it) if *ty == Type::INT4 => i32::try_from(*it)?.to_sql(ty, out),
            Value::Int(it) if *ty == Type::INT2 => i16::try_from(*it)?.to_sql(ty, out),
            #[expect(
                clippy::cast_precision_loss,
                reason = "an integer compared with a float column"
            )]
            Value::Int(it) if *ty == Type::FLOAT8 => (*it as f64).to_sql(ty, out),
            Value::Int(it) => it.to_sql(ty, out),
            Value::Real(it) => it.to_sql(ty, out),
            Value::Text(it) if *ty == Type::JSONB => {
                out.extend_from_slice(&[1]);
                out.extend_from_slice(it.as_bytes());
                Ok(IsNull::No)
            }
            Value::Text(it) => {
                out.extend_from_slice(it.as_bytes());
                Ok(IsNull::No)
            }
            Value::Bytes(it) => it.to_sql(ty, out),
            Value::Bool(it) => it.to_sql(ty, out),
            Value::Time(it) => {
                // A client may ask for what was before the first year that the server knows.
                let micros = it.micros().saturating_sub(EPOCH).max(FIRST);
                out.extend_from_slice(&micros.to_be_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> std::result::Result<Self, BoxError> {
        Ok(match *ty {
            Type::BOOL => Value::Bool(bool::from_sql(ty, raw)?),
            Type::INT2 => Value::Int(i16::from_sql(ty, raw)?.into()),
            Type::INT4 => Value::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Value::Int(i64::from_sql(ty, raw)?),
            Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.into()),
            Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
            Type::BYTEA => Value::Bytes(raw.to_vec()),
            Type::TIMESTAMPTZ => {
                let micros = i64::from_be_bytes(raw.try_into()?);
                Value::Time(Time::from_micros(micros.saturating_add(EPOCH)))
            }
            Type::JSONB => {
                Value::Text(String::from_utf8(raw.get(1..).unwrap_or_default().to_vec())?)
            }
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON => {
                Value::Text(String::from_utf8(raw.to_vec())?)
            }
            _ => return Err(format!("columns of type {ty} are not read").into()),
        })
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Self, BoxError> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
