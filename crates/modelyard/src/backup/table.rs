//! Tables as the database describes them: backup knows their names and nothing more.

use modelyard_kernel::Conn;
use modelyard_kernel::db::{Dialect, Result, Row, Value, query};

use super::format::{Column, ColumnKind};

/// Rows that are read at a time: some have megabytes in them.
const PAGE: usize = 20;

/// A table of a database.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// Whether each column is an instant.
    pub(super) times: Vec<bool>,
    /// The places of the columns of the primary key.
    key: Vec<usize>,
}

impl Table {
    /// Asks the database what the table looks like.
    pub(super) async fn describe(conn: &mut Conn, name: &str) -> Result<Self> {
        let sql = match conn.dialect() {
            Dialect::Sqlite => {
                "SELECT name, type, CAST(pk AS INTEGER) FROM pragma_table_info($1) ORDER BY cid"
            }
            Dialect::Postgres => {
                "SELECT CAST(a.attname AS TEXT), format_type(a.atttypid, NULL),
                        CAST(COALESCE(array_position(CAST(i.indkey AS SMALLINT[]), a.attnum) + 1, 0) AS BIGINT)
                 FROM pg_attribute a
                 LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
                 WHERE a.attrelid = to_regclass(CAST($1 AS TEXT)) AND a.attnum > 0 AND NOT a.attisdropped
                 ORDER BY a.attnum"
            }
        };
        let found: Vec<(String, String, i64)> = query(sql).bind(name).fetch_all(conn).await?;
        let mut key: Vec<(i64, usize)> = (found.iter().enumerate())
            .filter(|(_, it)| it.2 > 0)
            .map(|(place, it)| (it.2, place))
            .collect();
        key.sort_unstable();
        let times = found.iter().map(|it| it.1.starts_with("timestamp")).collect();
        let columns = (found.into_iter())
            .map(|(name, declared, _)| Column { name, kind: kind(&declared) })
            .collect();
        let key = key.into_iter().map(|it| it.1).collect();
        Ok(Self { name: name.to_owned(), columns, times, key })
    }

    /// Whether it has any row.
    pub(super) async fn has_rows(&self, conn: &mut Conn) -> Result<bool> {
        let sql = format!("SELECT CAST(1 AS BIGINT) FROM {} LIMIT 1", self.name);
        Ok(query(sql).fetch_optional::<(i64,)>(conn).await?.is_some())
    }

    /// The rows that follow `after` in the order of the key, a page of them; every column of each.
    pub(super) async fn page(
        &self,
        conn: &mut Conn,
        after: Option<&[Value]>,
        condition: &str,
    ) -> Result<Vec<Vec<Value>>> {
        let names: Vec<&str> = self.columns.iter().map(|it| it.name.as_str()).collect();
        let key: Vec<&str> = self.key.iter().map(|it| names[*it]).collect();
        let (names, key) = (names.join(", "), key.join(", "));
        let mut sql = format!("SELECT {names} FROM {} WHERE {condition}", self.name);
        if after.is_some() {
            let places: Vec<String> = (1..=self.key.len()).map(|it| format!("${it}")).collect();
            sql.push_str(&format!(" AND ({key}) > ({})", places.join(", ")));
        }
        sql.push_str(&format!(" ORDER BY {key} LIMIT {PAGE}"));
        let rows: Vec<Row> = query(sql)
            .bind_all(after.unwrap_or_default().iter().cloned())
            .with_names()
            .fetch_all(conn)
            .await?;
        Ok(rows.into_iter().map(|row| row.into_columns().map(|it| it.1).collect()).collect())
    }

    /// What [`Table::page`] wants to know of the last row.
    pub(super) fn key_of(&self, row: &[Value]) -> Vec<Value> {
        self.key.iter().filter_map(|place| row.get(*place).cloned()).collect()
    }

    /// Where a column stands.
    pub(super) fn place(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|it| it.name == column)
    }
}

fn kind(declared: &str) -> ColumnKind {
    match declared.to_ascii_lowercase().as_str() {
        "bigint" | "integer" | "smallint" => ColumnKind::Int,
        "double precision" | "real" => ColumnKind::Real,
        "boolean" => ColumnKind::Bool,
        "bytea" | "blob" => ColumnKind::Bytes,
        _ => ColumnKind::Text,
    }
}
