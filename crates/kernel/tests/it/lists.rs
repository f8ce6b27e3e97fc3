//! Lists: what the database answers is what a program that looks at every row would answer.

use modelyard_kernel::db::{Conn, FromRow, Json, Row, query};
use modelyard_kernel::list::{Direction, Field, FieldKind, Fields, ListQuery, Listed};
use modelyard_kernel::{Scope, Time, Ulid};
use modelyard_testkit::{TestDatabase, on_both_databases, scope_of, test_scope};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

static FIELDS: Fields = Fields {
    table: "configs",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("name", FieldKind::Text),
        Field::new("revision", FieldKind::Int),
        Field::new("created_at", FieldKind::Time),
        Field::unsortable("tags", FieldKind::Tags),
    ],
    keys: &["id", "name", "revision", "created_at", "tags"],
    search: &["name", "tags"],
    default_sort: ("id", Direction::Asc),
};

static TASK_FIELDS: Fields = Fields {
    table: "tasks",
    fields: &[
        Field::new("id", FieldKind::Id),
        Field::new("enabled", FieldKind::Bool),
        Field::unsortable("task_type", FieldKind::OneOf(&["shell", "python"])),
    ],
    keys: &["id"],
    search: &["command"],
    default_sort: ("id", Direction::Asc),
};

const COLUMNS: &str = "id, name, revision, created_at, tags";

#[derive(Clone, Debug, PartialEq)]
struct Thing {
    id: Ulid,
    name: String,
    revision: i64,
    created_at: Time,
    tags: Vec<String>,
}

impl FromRow for Thing {
    fn from_row(mut row: Row) -> modelyard_kernel::db::Result<Self> {
        Ok(Self {
            id: row.take("id")?,
            name: row.take("name")?,
            revision: row.take("revision")?,
            created_at: row.take("created_at")?,
            tags: row.take::<Json<_>>("tags")?.0,
        })
    }
}

async fn insert(conn: &mut Conn, scope: &Scope, thing: &Thing) {
    query(
        "INSERT INTO configs (tenant_id, service_id, id, name, tags, data, revision, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, '{}', $6, $7, $7)",
    )
    .bind(scope.tenant())
    .bind(scope.service())
    .bind(thing.id)
    .bind(&thing.name)
    .bind(Json(&thing.tags))
    .bind(thing.revision)
    .bind(thing.created_at)
    .execute(conn)
    .await
    .unwrap();
}

async fn fetch(conn: &mut Conn, text: &str) -> Listed<Thing> {
    let query = ListQuery::read(Some(text), &FIELDS, &[]);
    let query = query.unwrap_or_else(|error| panic!("{text}: {error:?}"));
    query
        .fetch(conn, &test_scope(), COLUMNS)
        .await
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn fetch_all(conn: &mut Conn, text: &str) -> Vec<Thing> {
    match fetch(conn, text).await {
        Listed::All(items) => items,
        other => panic!("{text}: {other:?}"),
    }
}

async fn names(conn: &mut Conn, text: &str) -> Vec<String> {
    fetch_all(conn, text).await.into_iter().map(|it| it.name).collect()
}

/// Every page, by following the cursors.
async fn walk(conn: &mut Conn, text: &str, limit: usize) -> Vec<Thing> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = fetch(conn, &format!("{text}&limit={limit}&cursor={cursor}")).await;
        let Listed::Cursor { items, next } = page else { panic!("{text}: {page:?}") };
        assert!(items.len() == limit || next.is_none());
        all.extend(items);
        match next {
            Some(next) => cursor = next,
            None => return all,
        }
    }
}

/// Few different values, so that many rows are alike.
fn things(database: &TestDatabase, count: usize) -> Vec<Thing> {
    let strategy = (
        select(vec![
            "", "a", "A", "aa", "ab", "b", "a%b", "a_b", "a!b", "a\\b", "\u{e9}", "\u{c9}", "e",
            "'", "~",
        ]),
        -2_i64..3,
        0_i64..4,
        subsequence(vec!["x", "y", "x-1", "X", "\u{e9}"], 0..4),
    );
    let mut runner = TestRunner::deterministic();
    (0..count)
        .map(|_| {
            let (name, revision, seconds, tags) = strategy.new_tree(&mut runner).unwrap().current();
            Thing {
                id: database.clock.ulid(),
                name: name.to_owned(),
                revision,
                created_at: Time::from_micros(TestDatabase::start().micros() + seconds * 500_000),
                tags: tags.into_iter().map(str::to_owned).collect(),
            }
        })
        .collect()
}

async fn filled(database: &TestDatabase, count: usize) -> (Conn, Vec<Thing>) {
    let mut conn = database.db.conn().await.unwrap();
    let things = things(database, count);
    for thing in &things {
        insert(&mut conn, &test_scope(), thing).await;
    }
    (conn, things)
}

/// A condition, as a query string and as a program.
#[derive(Clone, Debug)]
enum Condition {
    Name(&'static str, &'static str),
    Revision(&'static str, i64),
    Created(&'static str, Time),
    NameContains(&'static str),
    NameIn(Vec<&'static str>),
    Tag(bool, &'static str),
    TagIn(Vec<&'static str>),
    Search(&'static str),
}

impl Condition {
    fn any() -> impl Strategy<Value = Condition> {
        const WORDS: &[&str] =
            &["", "a", "A", "aa", "a%b", "a_b", "%", "_", "!", "\\", "\u{e9}", "b", "'"];
        const TAGS: &[&str] = &["x", "X", "x-1", "\u{e9}", "none", "%"];
        const SEARCHES: &[&str] = &["a", "B", "%", "_", "!", "x-", "\u{c9}", "zzz"];
        let operator = || select(&["eq", "ne", "gt", "gte", "lt", "lte"][..]);
        let time = (-1_i64..5)
            .prop_map(|it| Time::from_micros(TestDatabase::start().micros() + it * 500_000));
        prop_oneof![
            (operator(), select(WORDS)).prop_map(|it| Condition::Name(it.0, it.1)),
            (operator(), -3_i64..4).prop_map(|it| Condition::Revision(it.0, it.1)),
            (operator(), time).prop_map(|it| Condition::Created(it.0, it.1)),
            select(WORDS).prop_map(Condition::NameContains),
            subsequence(WORDS, 1..4).prop_map(Condition::NameIn),
            (any::<bool>(), select(TAGS)).prop_map(|it| Condition::Tag(it.0, it.1)),
            subsequence(TAGS, 1..4).prop_map(Condition::TagIn),
            select(SEARCHES).prop_map(Condition::Search),
        ]
    }

    fn text(&self) -> String {
        let list = |words: &[&str]| words.iter().map(|it| encode(it)).collect::<Vec<_>>().join(",");
        match self {
            Condition::Name(operator, word) => format!("name[{operator}]={}", encode(word)),
            Condition::Revision(operator, number) => format!("revision[{operator}]={number}"),
            Condition::Created(operator, time) => format!("created_at[{operator}]={time}"),
            Condition::NameContains(word) => format!("name[contains]={}", encode(word)),
            Condition::NameIn(words) => format!("name[in]={}", list(words)),
            Condition::Tag(true, tag) => format!("tags={}", encode(tag)),
            Condition::Tag(false, tag) => format!("tags[ne]={}", encode(tag)),
            Condition::TagIn(tags) => format!("tags[in]={}", list(tags)),
            Condition::Search(word) => format!("q={}", encode(word)),
        }
    }

    fn keeps(&self, it: &Thing) -> bool {
        match self {
            Condition::Name(operator, word) => compare(operator, it.name.as_str(), word),
            Condition::Revision(operator, number) => compare(operator, it.revision, *number),
            Condition::Created(operator, time) => compare(operator, it.created_at, *time),
            Condition::NameContains(word) => contains(&it.name, word),
            Condition::NameIn(words) => words.contains(&it.name.as_str()),
            Condition::Tag(wanted, tag) => it.tags.iter().any(|it| it == tag) == *wanted,
            Condition::TagIn(tags) => it.tags.iter().any(|it| tags.contains(&it.as_str())),
            Condition::Search(word) => {
                it.tags.iter().chain([&it.name]).any(|it| contains(it, word))
            }
        }
    }
}

/// Letters beyond ASCII have one case only.
fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

fn compare<T: PartialOrd>(operator: &str, left: T, right: T) -> bool {
    match operator {
        "eq" => left == right,
        "ne" => left != right,
        "gt" => left > right,
        "gte" => left >= right,
        "lt" => left < right,
        "lte" => left <= right,
        other => panic!("{other}"),
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|it| format!("%{it:02X}")).collect()
}

on_both_databases! {
    async fn every_condition_keeps_what_a_program_would_keep(database: TestDatabase) {
        let (mut conn, things) = filled(&database, 120).await;
        let mut runner = TestRunner::deterministic();
        let strategy = proptest::collection::vec(Condition::any(), 1..3);
        for _ in 0..150 {
            let conditions = strategy.new_tree(&mut runner).unwrap().current();
            let text: Vec<String> = conditions.iter().map(Condition::text).collect();
            let text = text.join("&");
            // The last `q` is the one that counts.
            if text.matches("q=").count() > 1 {
                continue;
            }
            let mut expected = things.clone();
            expected.retain(|thing| conditions.iter().all(|it| it.keeps(thing)));
            assert_eq!(fetch_all(&mut conn, &text).await, expected, "{text}");
        }
    }

    async fn walking_by_cursor_meets_every_row_once_in_order(database: TestDatabase) {
        let (mut conn, _) = filled(&database, 60).await;
        for sort in [
            "id", "id:desc", "name", "name:desc", "created_at:desc,name", "name:desc,revision",
            "revision:desc,created_at,name:desc", "revision,id:desc",
        ] {
            for filter in ["", "&name[ne]=a", "&q=x"] {
                let text = format!("sort={sort}{filter}");
                let all = fetch_all(&mut conn, &text).await;
                for limit in [1, 7, 60, 100] {
                    assert_eq!(walk(&mut conn, &text, limit).await, all, "{text}, {limit} at a time");
                }
            }
        }
    }

    async fn sorting_is_by_bytes_and_ids_decide_between_equals(database: TestDatabase) {
        let (mut conn, mut things) = filled(&database, 80).await;
        things.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        assert_eq!(fetch_all(&mut conn, "sort=name").await, things);
        things.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.revision.cmp(&b.revision)).then(a.id.cmp(&b.id)));
        assert_eq!(fetch_all(&mut conn, "sort=created_at:desc,revision").await, things);
    }

    async fn pages_have_a_total_and_end(database: TestDatabase) {
        let (mut conn, things) = filled(&database, 25).await;
        for (page, from, to) in [(1, 0, 10), (3, 20, 25), (4, 25, 25)] {
            let listed = fetch(&mut conn, &format!("page={page}&size=10")).await;
            let Listed::Page { items, total, .. } = listed else { panic!("{listed:?}") };
            assert_eq!((items.as_slice(), total), (&things[from..to], 25));
        }
        let far = fetch(&mut conn, "page=9223372036854775807&size=100").await;
        assert!(matches!(far, Listed::Page { ref items, total: 25, .. } if items.is_empty()), "{far:?}");
        let filtered = fetch(&mut conn, "page=1&size=100&revision=1").await;
        let Listed::Page { items, total, .. } = filtered else { panic!("{filtered:?}") };
        assert_eq!(total, i64::try_from(items.len()).unwrap());
        assert!(total < 25);
    }

    async fn what_stands_for_anything_elsewhere_stands_for_itself(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        for name in ["100%", "100 percent", "a_b", "axb", "wow!", "C:\\x", "\u{c9}cole", "\u{e9}cole"] {
            let thing = Thing {
                id: database.clock.ulid(),
                name: name.to_owned(),
                revision: 1,
                created_at: TestDatabase::start(),
                tags: vec!["tag_1".to_owned()],
            };
            insert(&mut conn, &test_scope(), &thing).await;
        }
        assert_eq!(names(&mut conn, "q=0%25").await, ["100%"]);
        assert_eq!(names(&mut conn, "q=A_B").await, ["a_b"]);
        assert_eq!(names(&mut conn, "name[contains]=W!").await, ["wow!"]);
        assert_eq!(names(&mut conn, "name[contains]=%5C").await, ["C:\\x"]);
        assert_eq!(names(&mut conn, "q=%C3%89cole").await, ["\u{c9}cole"]);
        assert_eq!(names(&mut conn, "q=tag_1").await.len(), 8);
        assert!(names(&mut conn, "q=tagx1").await.is_empty());
    }

    async fn other_tenants_and_services_are_not_seen(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        let thing = things(&database, 1).remove(0);
        for scope in [scope_of("default", "another"), scope_of("another", "test-model")] {
            insert(&mut conn, &scope, &thing).await;
        }
        assert!(fetch_all(&mut conn, "").await.is_empty());
        assert!(fetch_all(&mut conn, &format!("id={}", thing.id)).await.is_empty());
        insert(&mut conn, &test_scope(), &thing).await;
        assert_eq!(fetch_all(&mut conn, "q=").await, [thing]);
    }

    async fn yes_and_no_and_words_are_compared(database: TestDatabase) {
        let mut conn = database.db.conn().await.unwrap();
        let scope = test_scope();
        for (enabled, kind) in [(true, "shell"), (false, "shell"), (true, "python")] {
            query(
                "INSERT INTO tasks (tenant_id, service_id, id, command, task_type, enabled, revision, created_at, updated_at)
                 VALUES ($1, $2, $3, 'echo', $4, $5, 1, $6, $6)",
            )
            .bind(scope.tenant())
            .bind(scope.service())
            .bind(database.clock.ulid())
            .bind(kind)
            .bind(enabled)
            .bind(database.clock.now())
            .execute(&mut conn)
            .await
            .unwrap();
        }
        for (text, count) in [
            ("enabled=true", 2), ("enabled=0", 1), ("enabled[ne]=true", 1), ("task_type=shell", 2),
            ("task_type[in]=shell,python", 3), ("task_type[ne]=shell&enabled=true", 1), ("q=ECHO", 3),
            ("sort=enabled:desc&limit=2", 2),
        ] {
            let query = ListQuery::read(Some(text), &TASK_FIELDS, &[]).unwrap();
            let listed: Listed<(Ulid,)> = query.fetch(&mut conn, &scope, "id").await.unwrap();
            let (Listed::All(items) | Listed::Page { items, .. } | Listed::Cursor { items, .. }) = listed;
            assert_eq!(items.len(), count, "{text}");
        }
        let first = ListQuery::read(Some("sort=enabled:desc&limit=2"), &TASK_FIELDS, &[]).unwrap();
        let listed: Listed<(Ulid,)> = first.fetch(&mut conn, &scope, "id").await.unwrap();
        let Listed::Cursor { next: Some(next), .. } = listed else { panic!("{listed:?}") };
        let text = format!("sort=enabled:desc&limit=2&cursor={next}");
        let rest = ListQuery::read(Some(&text), &TASK_FIELDS, &[]).unwrap();
        let listed: Listed<(Ulid,)> = rest.fetch(&mut conn, &scope, "id").await.unwrap();
        assert!(matches!(listed, Listed::Cursor { ref items, next: None } if items.len() == 1), "{listed:?}");
    }
}
