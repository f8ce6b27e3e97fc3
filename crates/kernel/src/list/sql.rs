//! From a [`ListQuery`] to a statement. Every piece of SQL here comes from the code: a request
//! decides which pieces, and its values are bound.

use super::{Direction, Field, FieldKind, Filter, ListQuery, Listed, Operator, Paging, cursor};
use crate::Scope;
use crate::db::{Conn, Dialect, FromRow, Query, Result, Row, Value, query};

struct Builder {
    sql: String,
    args: Vec<Value>,
    dialect: Dialect,
}

impl Builder {
    fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    fn bind(&mut self, value: Value) {
        self.args.push(value);
        self.sql.push('$');
        self.sql.push_str(&self.args.len().to_string());
    }

    /// Makes `LOWER` change the letters of ASCII only, as SQLite does and as what is looked for was
    /// changed, whatever language PostgreSQL was set up for.
    fn bytewise(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => " COLLATE \"C\"",
        }
    }

    fn into_query(self) -> Query {
        query(self.sql).bind_all(self.args)
    }
}

impl ListQuery {
    /// Asks the database. `columns` are those that `T` reads.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn fetch<T: FromRow>(
        &self,
        conn: &mut Conn,
        scope: &Scope,
        columns: &str,
    ) -> Result<Listed<T>> {
        let mut select = Builder { sql: String::new(), args: Vec::new(), dialect: conn.dialect() };
        select.push("SELECT ");
        select.push(columns);
        match &self.paging {
            Paging::All => {
                self.conditions(&mut select, scope);
                self.order(&mut select);
                Ok(Listed::All(select.into_query().fetch_all(conn).await?))
            }
            Paging::Page { page, size } => {
                self.conditions(&mut select, scope);
                self.order(&mut select);
                select.push(&format!(" LIMIT {size} OFFSET {}", (page - 1).saturating_mul(*size)));
                let items = select.into_query().fetch_all(conn).await?;
                let total = self.count(conn, scope).await?;
                Ok(Listed::Page { items, total, page: *page, size: *size })
            }
            Paging::Cursor { after, limit } => {
                for (name, _) in &self.sort {
                    select.push(", ");
                    select.push(name);
                }
                self.conditions(&mut select, scope);
                if let Some(after) = after {
                    self.after(&mut select, after);
                }
                self.order(&mut select);
                select.push(&format!(" LIMIT {}", limit + 1));
                let mut rows: Vec<Row> = select.into_query().fetch_all(conn).await?;
                let more = rows.len() > usize::try_from(*limit).unwrap_or(usize::MAX);
                rows.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                let next = rows.last().filter(|_| more).map(|row| {
                    let values = row.values.as_slice();
                    let keys = values.len().saturating_sub(self.sort.len());
                    cursor::encode(&values[keys..], self)
                });
                let items = rows.into_iter().map(T::from_row).collect::<Result<_>>()?;
                Ok(Listed::Cursor { items, next })
            }
        }
    }

    /// How many items meet the conditions.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn count(&self, conn: &mut Conn, scope: &Scope) -> Result<i64> {
        let mut select = Builder { sql: String::new(), args: Vec::new(), dialect: conn.dialect() };
        select.push("SELECT COUNT(*)");
        self.conditions(&mut select, scope);
        Ok(select.into_query().fetch_one::<(i64,)>(conn).await?.0)
    }

    fn conditions(&self, to: &mut Builder, scope: &Scope) {
        to.push(" FROM ");
        to.push(self.fields.table);
        to.push(" WHERE tenant_id = ");
        to.bind(scope.tenant().into());
        to.push(" AND service_id = ");
        to.bind(scope.service().into());
        for filter in &self.filters {
            to.push(" AND ");
            self.condition(to, filter);
        }
        if let Some(search) = &self.search {
            let pattern = format!("%{}%", escape_like(search));
            for (index, column) in self.fields.search.iter().enumerate() {
                to.push(if index == 0 { " AND (" } else { " OR " });
                to.push(&format!("LOWER(CAST({column} AS TEXT){}) LIKE ", to.bytewise()));
                to.bind(Value::Text(pattern.clone()));
                to.push(" ESCAPE '!'");
            }
            if !self.fields.search.is_empty() {
                to.push(")");
            }
        }
    }

    fn condition(&self, to: &mut Builder, filter: &Filter) {
        let field = &self.fields.fields[filter.field];
        if field.kind == FieldKind::Tags {
            let each = match to.dialect {
                Dialect::Sqlite => format!("json_each({})", field.name),
                Dialect::Postgres => {
                    format!("json_array_elements_text({}) AS each(value)", field.name)
                }
            };
            to.push(if filter.operator == Operator::Ne { "NOT EXISTS (" } else { "EXISTS (" });
            to.push(&format!("SELECT 1 FROM {each} WHERE value IN ("));
            bind_list(to, &filter.values);
            to.push("))");
            return;
        }
        if filter.operator == Operator::Ne {
            // What has no value is not equal to any.
            to.push(&format!("({} IS NULL OR NOT ", field.name));
            compare(to, field, Operator::Eq, &filter.values);
            to.push(")");
            return;
        }
        compare(to, field, filter.operator, &filter.values);
    }

    /// `(a, b) > (x, y)` written out, since the directions may differ.
    fn after(&self, to: &mut Builder, values: &[Value]) {
        to.push(" AND (");
        for index in 0..self.sort.len() {
            to.push(if index == 0 { "(" } else { " OR (" });
            for (equal, (name, _)) in self.sort.iter().enumerate().take(index) {
                to.push(name);
                to.push(" = ");
                to.bind(values[equal].clone());
                to.push(" AND ");
            }
            let (name, direction) = self.sort[index];
            to.push(name);
            to.push(if direction == Direction::Asc { " > " } else { " < " });
            to.bind(values[index].clone());
            to.push(")");
        }
        to.push(")");
    }

    fn order(&self, to: &mut Builder) {
        for (index, (name, direction)) in self.sort.iter().enumerate() {
            to.push(if index == 0 { " ORDER BY " } else { ", " });
            to.push(name);
            if *direction == Direction::Desc {
                to.push(" DESC");
            }
        }
    }
}

fn compare(to: &mut Builder, field: &Field, operator: Operator, values: &[Value]) {
    match operator {
        _ if field.kind == FieldKind::Time => compare_times(to, field.name, operator, values),
        Operator::Contains => {
            to.push(&format!("LOWER({}{}) LIKE ", field.name, to.bytewise()));
            let text = if let Some(Value::Text(it)) = values.first() { it } else { "" };
            to.bind(Value::Text(format!("%{}%", escape_like(text))));
            to.push(" ESCAPE '!'");
        }
        Operator::In => {
            to.push(field.name);
            to.push(" IN (");
            bind_list(to, values);
            to.push(")");
        }
        operator => {
            to.push(field.name);
            to.push(sign(operator));
            to.bind(values.first().cloned().unwrap_or(Value::Null));
        }
    }
}

/// `values` are the first instant that is meant and the first after it, and so on in pairs.
fn compare_times(to: &mut Builder, name: &str, operator: Operator, values: &[Value]) {
    let (pairs, _) = values.as_chunks::<2>();
    to.push("(");
    for (index, [from, until]) in pairs.iter().enumerate() {
        to.push(if index == 0 { "" } else { " OR " });
        to.push(name);
        match operator {
            Operator::Gt | Operator::Lte => {
                to.push(if operator == Operator::Gt { " >= " } else { " < " });
                to.bind(until.clone());
            }
            Operator::Gte | Operator::Lt => {
                to.push(sign(operator));
                to.bind(from.clone());
            }
            _ => {
                to.push(" >= ");
                to.bind(from.clone());
                to.push(" AND ");
                to.push(name);
                to.push(" < ");
                to.bind(until.clone());
            }
        }
    }
    to.push(")");
}

fn bind_list(to: &mut Builder, values: &[Value]) {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            to.push(", ");
        }
        to.bind(value.clone());
    }
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Gt => " > ",
        Operator::Gte => " >= ",
        Operator::Lt => " < ",
        Operator::Lte => " <= ",
        _ => " = ",
    }
}

fn escape_like(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}
