//! PostgreSQL through a pool of connections.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use futures_util::FutureExt;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::{Answer, Error, Options, Query, Result, Row, Value};
use crate::Time;

/// From 1970 to 2000, where PostgreSQL begins to count, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;

#[derive(Clone)]
pub(super) struct Postgres(Pool);

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Postgres").field(&self.0.status()).finish()
    }
}

impl Postgres {
    pub(super) async fn connect(options: &Options) -> Result<Self> {
        let config: tokio_postgres::Config =
            options.url.parse().map_err(|it: tokio_postgres::Error| Error::Connect(it.into()))?;
        let manager = Manager::from_config(
            config,
            NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(options.pool_size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(options.connect_timeout),
                create: Some(options.connect_timeout),
                recycle: Some(Duration::from_secs(5)),
            })
            .build()
            .map_err(|it| Error::Connect(it.into()))?;
        let it = Self(pool);
        it.reach(options.connect_timeout).await?;
        Ok(it)
    }

    /// Tries until the server answers: it may start at the same time as we do.
    async fn reach(&self, patience: Duration) -> Result<()> {
        let mut pause = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        loop {
            match self.conn().await {
                Ok(_) => return Ok(()),
                Err(error) if waited >= patience => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the database does not answer yet, trying again");
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    pub(super) async fn conn(&self) -> Result<Client> {
        self.0.get().await.map(Client).map_err(|it| match it {
            deadpool_postgres::PoolError::Timeout(_) => Error::Busy,
            other => Error::Connect(other.into()),
        })
    }

    pub(super) async fn begin(&self) -> Result<Client> {
        let client = self.conn().await?;
        client.batch("BEGIN").await?;
        Ok(client)
    }

    pub(super) fn close(&self) {
        self.0.close();
    }
}

pub(super) struct Client(Object);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub(super) async fn run(&self, query: Query) -> Result<Answer> {
        let statement = self.0.prepare_cached(&query.sql).await.map_err(classify)?;
        let args: Vec<&(dyn ToSql + Sync)> =
            query.args.iter().map(|it| it as &(dyn ToSql + Sync)).collect();
        if statement.columns().is_empty() {
            let affected = self.0.execute(&statement, &args).await.map_err(classify)?;
            return Ok(Answer { rows: Vec::new(), affected });
        }
        let names = query.named.then(|| {
            statement.columns().iter().map(|it| it.name().to_owned()).collect::<Arc<[String]>>()
        });
        let found = self.0.query(&statement, &args).await.map_err(classify)?;
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            let values = (0..row.len()).map(|it| row.try_get(it)).collect::<std::result::Result<_, _>>();
            let mut row = Row::new(values.map_err(classify)?);
            row.names.clone_from(&names);
            rows.push(row);
        }
        let affected = rows.len() as u64;
        Ok(Answer { rows, affected })
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        self.0.batch_execute(sql).await.map_err(classify)
    }

    pub(super) async fn commit(&mut self) -> Result<()> {
        self.batch("COMMIT").await
    }

    /// Undoes an open transaction without waiting: the command is on its way before the connection
    /// is back in the pool, and whoever takes it next speaks after it.
    pub(super) fn abandon(self) {
        let _sent = self.0.batch_execute("ROLLBACK").now_or_never();
    }
}

fn classify(error: tokio_postgres::Error) -> Error {
    if error.is_closed() {
        return Error::Connect(error.into());
    }
    match error.code() {
        Some(it) if *it == SqlState::T_R_SERIALIZATION_FAILURE => Error::Serialization,
        Some(it) if *it == SqlState::T_R_DEADLOCK_DETECTED => Error::Serialization,
        Some(it) if *it == SqlState::UNIQUE_VIOLATION => Error::Unique,
        Some(it) if *it == SqlState::FOREIGN_KEY_VIOLATION => Error::ForeignKey,
        Some(it) if *it == SqlState::DISK_FULL => Error::Full,
        Some(it) if *it == SqlState::READ_ONLY_SQL_TRANSACTION => Error::ReadOnly,
        // 57P01 to 57P03: shutting down, crashed, starting up.
        Some(it) if it.code().starts_with("57P") || it.code().starts_with("08") => {
            Error::Connect(error.into())
        }
        None if StdError::source(&error).is_some_and(|it| it.is::<std::io::Error>()) => {
            Error::Connect(error.into())
        }
        _ => Error::Driver(error.into()),
    }
}

type BoxError = Box<dyn StdError + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, BoxError> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(it) if *ty == Type::INT4 => i32::try_from(*it)?.to_sql(ty, out),
            Value::Int(it) if *ty == Type::INT2 => i16::try_from(*it)?.to_sql(ty, out),
            #[expect(clippy::cast_precision_loss, reason = "an integer compared with a float column")]
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
                out.extend_from_slice(&(it.micros() - EPOCH).to_be_bytes());
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
                Value::Time(Time::from_micros(i64::from_be_bytes(raw.try_into()?) + EPOCH))
            }
            Type::JSONB => Value::Text(String::from_utf8(raw.get(1..).unwrap_or_default().to_vec())?),
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
