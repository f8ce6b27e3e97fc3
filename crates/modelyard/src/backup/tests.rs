use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use modelyard_kernel::db::{Json as AsJson, Value, query};
use modelyard_kernel::{Conn, Time, Ulid};
use modelyard_schema::TABLES;
use modelyard_testkit::{TestDatabase, on_both_databases, run, test_scope};
use serde_json::Value as Json;

use super::format::{MANIFEST, Manifest, to_json};
use super::table::Table;
use super::*;

fn open_blobs(database: &TestDatabase) -> Blobs {
    Blobs::directory(&database.dir().join("blobs"), database.clock.clone()).unwrap()
}

fn file(database: &TestDatabase) -> PathBuf {
    database.dir().join("backup.zip")
}

async fn insert(conn: &mut Conn, table: &str, columns: &[(&str, Value)]) {
    let scope = test_scope();
    let scope = [("tenant_id", scope.tenant().into()), ("service_id", scope.service().into())];
    let columns: Vec<&(&str, Value)> = scope.iter().chain(columns).collect();
    let names: Vec<&str> = columns.iter().map(|it| it.0).collect();
    let places: Vec<String> = (1..=names.len()).map(|it| format!("${it}")).collect();
    let (names, places) = (names.join(", "), places.join(", "));
    query(format!("INSERT INTO {table} ({names}) VALUES ({places})"))
        .bind_all(columns.into_iter().map(|it| it.1.clone()))
        .execute(conn)
        .await
        .unwrap();
}

fn times(now: Time) -> [(&'static str, Value); 2] {
    [("created_at", now.into()), ("updated_at", now.into())]
}

async fn insert_config(conn: &mut Conn, id: Ulid, name: &str, now: Time) {
    let columns = [
        ("id", id.into()),
        ("name", name.into()),
        ("tags", "[ \"a\" ,\"\u{e9}\" ]".into()),
        ("data", "{\"z\":1.0,\"a\":{\"deep\":[1e2,null]},\"nul\":\"\\u0000\"}".into()),
        ("revision", i64::MAX.into()),
    ];
    insert(conn, "configs", &[&columns[..], &times(now)].concat()).await;
}

async fn insert_artifact(conn: &mut Conn, id: Ulid, parent: Option<Ulid>, now: Time) {
    let columns = [
        ("id", id.into()),
        ("parent_id", parent.into()),
        ("level", i64::from(parent.is_some()).into()),
        ("tags", "[]".into()),
        ("data", "{}".into()),
        ("revision", 1.into()),
        ("content", Value::from("line\nbreaks \u{1f600}\t\"quoted\"")),
    ];
    insert(conn, "artifacts", &[&columns[..], &times(now)].concat()).await;
}

const KEEP: Restoring = Restoring { replace: false, keep_sessions: true };
const REPLACE: Restoring = Restoring { replace: true, keep_sessions: true };

/// Rows in every table, and content.
async fn fill(database: &TestDatabase, blobs: &Blobs) -> Vec<Bytes> {
    let clock = &database.clock;
    let now = Time::from_micros(clock.now().micros() + 123_456);
    let mut conn = database.db.conn().await.unwrap();
    let config = clock.ulid();
    insert_config(&mut conn, config, "na\u{ef}ve", now).await;
    for number in 0..70 {
        insert_config(&mut conn, clock.ulid(), &number.to_string(), now).await;
    }
    let root = clock.ulid();
    insert_artifact(&mut conn, root, None, now).await;
    insert_artifact(&mut conn, clock.ulid(), Some(root), now).await;
    let link = [("config_id", config.into()), ("artifact_id", root.into())];
    insert(&mut conn, "config_artifacts", &link).await;
    for input in [Value::Null, (0..=255).collect::<Vec<u8>>().into()] {
        let columns = [
            ("id", clock.ulid().into()),
            ("kind", "ml.train".into()),
            ("status", "pending".into()),
            ("input", input),
            ("submitted_at", now.into()),
        ];
        insert(&mut conn, "jobs", &columns).await;
    }
    for enabled in [true, false] {
        let columns = [
            ("id", clock.ulid().into()),
            ("command", "echo".into()),
            ("task_type", "shell".into()),
            ("parameters", if enabled { "{\"a\": 1}".into() } else { Value::Null }),
            ("enabled", enabled.into()),
            ("revision", 1.into()),
        ];
        insert(&mut conn, "tasks", &[&columns[..], &times(now)].concat()).await;
    }
    fill_jobs(&mut conn, clock.ulid(), now).await;
    fill_schedules(&mut conn, clock.ulid(), now).await;
    fill_access(&mut conn, clock.ulid(), now).await;
    fill_audit(&mut conn, clock.ulid(), now).await;
    let contents =
        vec![Bytes::new(), Bytes::from(vec![7; 3_000_000]), Bytes::from_static(b"abc"), noise()];
    for content in &contents {
        let stored = blobs.put(content.clone()).await.unwrap();
        blobs.refer(&mut conn, &test_scope(), &stored).await.unwrap();
        stored.settle(true).await;
    }
    for table in TABLES {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let (rows,): (i64,) = query(sql).fetch_one(&mut conn).await.unwrap();
        assert!(rows > 0, "nothing is in the table {table}");
    }
    contents
}

/// A job with all that belongs to one.
async fn fill_jobs(conn: &mut Conn, id: Ulid, now: Time) {
    let job = [
        ("id", id.into()),
        ("kind", "ml.train".into()),
        ("status", "failed".into()),
        ("submitted_at", now.into()),
        ("finished_at", now.into()),
        ("serial_key", "a key".into()),
        ("token", i64::MAX.into()),
        ("dead_letter", true.into()),
        ("progress", "{\"at\":1,\"fraction\":0.5}".into()),
        ("log_tail", "[\"a \u{1f600}\"]".into()),
    ];
    insert(conn, "jobs", &job).await;
    let of = ("job_id", Value::from(id));
    let input: Vec<u8> = (0..=255).rev().collect();
    let inputs = [of.clone(), ("input", input.into()), ("created_at", now.into())];
    insert(conn, "job_inputs", &inputs).await;
    let step = [
        of.clone(),
        ("name", "fit".into()),
        ("node", "".into()),
        ("result", "{\"z\":1.0,\"a\":\"\\u0000\"}".into()),
        ("attempt", 2.into()),
        ("started_at", now.into()),
        ("finished_at", now.into()),
    ];
    insert(conn, "job_steps", &step).await;
    let lines = [
        of.clone(),
        ("first_seq", 1.into()),
        ("last_seq", 1.into()),
        ("lines", "[{\"seq\":1,\"at\":1,\"stream\":\"stdout\",\"text\":\"a\"}]".into()),
    ];
    insert(conn, "job_logs", &lines).await;
    let key = [
        of,
        ("name", "a request".into()),
        ("fingerprint", "0f".into()),
        ("artifact_id", id.into()),
        ("created_at", now.into()),
    ];
    insert(conn, "job_keys", &key).await;
    insert(conn, "paused_queues", &[("queue", "train".into()), ("paused_at", now.into())]).await;
}

/// A schedule and what came of a tick.
async fn fill_schedules(conn: &mut Conn, id: Ulid, now: Time) {
    let schedule = [
        ("id", id.into()),
        ("name", "daily".into()),
        ("enabled", true.into()),
        ("expression", "@daily".into()),
        ("time_zone", "Europe/Berlin".into()),
        ("kind", "ml.train".into()),
        ("input", "{}".into()),
        ("misfire", "once".into()),
        ("overlap", "skip".into()),
        ("jitter_seconds", 0.into()),
        ("owner", "somebody".into()),
        ("next_at", now.into()),
        ("revision", 1.into()),
    ];
    insert(conn, "schedules", &[&schedule[..], &times(now)].concat()).await;
    let run = [
        ("schedule_id", id.into()),
        ("tick_at", now.into()),
        ("fired_at", now.into()),
        ("outcome", "fired".into()),
        ("manual", false.into()),
        ("settled", true.into()),
    ];
    insert(conn, "schedule_runs", &run).await;
}

/// A user with all that belongs to one, and what it may do.
async fn fill_access(conn: &mut Conn, id: Ulid, now: Time) {
    let hash = |it: u8| Value::from(vec![it; 32]);
    let (of, created) = (("user_id", Value::from(id)), ("created_at", Value::from(now)));
    let ends = ("expires_at", Value::from(now));
    let user = [
        ("id", id.into()),
        ("email", "ada@example.org".into()),
        ("name", "Ada \u{1f600}".into()),
        ("status", "active".into()),
        ("password_hash", "$argon2id$v=19$x".into()),
        ("revision", 1.into()),
    ];
    insert(conn, "users", &[&user[..], &times(now)].concat()).await;
    let role = [
        ("name", "forecaster".into()),
        ("description", "".into()),
        ("permissions", "[\"ml:predict\"]".into()),
        ("inherits", "[]".into()),
        ("revision", 1.into()),
    ];
    insert(conn, "roles", &[&role[..], &times(now)].concat()).await;
    let binding = [
        ("subject_id", id.into()),
        ("role", "forecaster".into()),
        ("applies_to", "*".into()),
        created.clone(),
    ];
    insert(conn, "role_bindings", &binding).await;
    let key = [
        ("id", id.into()),
        ("name", "a key".into()),
        ("prefix", "mk_abcdefgh".into()),
        ("hash", hash(1)),
        ("scopes", "[]".into()),
        ("addresses", "[\"10.0.0.0/8\"]".into()),
        ("created_by", "user:x".into()),
        ("revision", 1.into()),
    ];
    insert(conn, "api_keys", &[&key[..], &times(now)].concat()).await;
    let session = [
        ("id", id.into()),
        of.clone(),
        ("kind", "token".into()),
        ("address", "127.0.0.1".into()),
        ("user_agent", "curl".into()),
        ("proved_at", now.into()),
        ("last_seen_at", now.into()),
        ends.clone(),
        created.clone(),
    ];
    insert(conn, "sessions", &session).await;
    let refresh = [("hash", hash(2)), ("session_id", id.into()), ends.clone(), created.clone()];
    insert(conn, "refresh_tokens", &refresh).await;
    let signing =
        [("id", id.into()), ("public_key", hash(3)), ("private_key", hash(4)), created.clone()];
    insert(conn, "signing_keys", &signing).await;
    let factor = [of.clone(), ("secret", hash(5)), ("last_step", i64::MAX.into()), created.clone()];
    insert(conn, "factors", &factor).await;
    insert(conn, "recovery_codes", &[of.clone(), ("hash", hash(6))]).await;
    insert(conn, "secret_checks", &[("sealed", hash(8)), created.clone()]).await;
    let link = [of, ("hash", hash(7)), ("purpose", "reset".into()), ends, created];
    insert(conn, "mailed_links", &link).await;
}

/// The audit, and something that is not in it yet.
async fn fill_audit(conn: &mut Conn, id: Ulid, now: Time) {
    let what = [
        ("id", Value::from(id)),
        ("at", now.into()),
        ("actor", "user:x".into()),
        ("action", "config.updated".into()),
        ("subject", "x".into()),
        ("outcome", "done".into()),
        ("after", "{\"z\":1.0,\"a\":\"\\u0000\"}".into()),
    ];
    insert(conn, "events", &what).await;
    let place = [
        ("seq", Value::from(1)),
        ("service", "a-model".into()),
        ("hash", Value::from(vec![8; 32])),
    ];
    insert(conn, "audit_entries", &[&what[..], &place[..]].concat()).await;
    let mark = [
        ("seq", Value::from(1)),
        ("hash", Value::from(vec![8; 32])),
        ("at", now.into()),
        ("kid", "a key".into()),
        ("public_key", Value::from(vec![9; 32])),
        ("signature", Value::from(vec![10; 64])),
    ];
    insert(conn, "audit_heads", &mark).await;
    insert(conn, "audit_anchors", &mark).await;
}

fn noise() -> Bytes {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(2_500_000).collect()
}

/// Every row of every table, as a backup has it.
async fn dump(db: &Db) -> Vec<Vec<Json>> {
    let mut all = Vec::new();
    let mut conn = db.conn().await.unwrap();
    for name in TABLES {
        let table = Table::describe(&mut conn, name).await.unwrap();
        let mut after: Option<Vec<Value>> = None;
        loop {
            let page = table.page(&mut conn, after.as_deref(), "1 = 1").await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(table.key_of(last));
            for row in page {
                let values = table.columns.iter().zip(row);
                all.push(values.map(|(column, it)| to_json(it, column.kind).unwrap()).collect());
            }
        }
    }
    all
}

async fn check_contents(database: &TestDatabase, blobs: &Blobs, contents: &[Bytes]) {
    let mut conn = database.db.conn().await.unwrap();
    let sql = "SELECT hash FROM blobs ORDER BY size_bytes";
    let hashes: Vec<(String,)> = query(sql).fetch_all(&mut conn).await.unwrap();
    let mut sorted = contents.to_vec();
    sorted.sort_by_key(Bytes::len);
    assert_eq!(hashes.len(), sorted.len());
    for ((hash,), content) in hashes.iter().zip(sorted) {
        let opened = blobs.open(&mut conn, &test_scope(), hash).await.unwrap();
        assert!(opened.bytes(u64::MAX).await.unwrap() == content);
    }
}

on_both_databases! {
    async fn what_is_restored_is_what_was_backed_up_whichever_database_it_is(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let contents = fill(&database, &blobs).await;
        let written = backup(&database.db, &blobs, &database.clock, &file(&database)).await.unwrap();
        assert_eq!((written.rows, written.objects), (105, 4));
        assert!(written.damaged.is_empty());
        let before = dump(&database.db).await;

        for target in [TestDatabase::sqlite().await, TestDatabase::postgres().await] {
            let target_blobs = open_blobs(&target);
            let read = restore(&target.db, &target_blobs, &file(&database), KEEP).await.unwrap();
            assert_eq!(read, written);
            assert_eq!(dump(&target.db).await, before);
            check_contents(&target, &target_blobs, &contents).await;
            // And what was restored can be backed up in turn, to the same rows.
            let again = backup(&target.db, &target_blobs, &target.clock, &file(&target)).await;
            assert_eq!(again.unwrap(), written);
        }
    }

    async fn a_database_with_rows_is_left_alone_unless_they_are_to_be_replaced(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let contents = fill(&database, &blobs).await;
        backup(&database.db, &blobs, &database.clock, &file(&database)).await.unwrap();
        let before = dump(&database.db).await;

        let mut conn = database.db.conn().await.unwrap();
        query("DELETE FROM tasks").execute(&mut conn).await.unwrap();
        let late = blobs.put(Bytes::from_static(b"late")).await.unwrap();
        blobs.refer(&mut conn, &test_scope(), &late).await.unwrap();
        late.settle(true).await;
        let sql = "SELECT object_key FROM blobs WHERE size_bytes = 4";
        let (late,): (String,) = query(sql).fetch_one(&mut conn).await.unwrap();
        let late = database.dir().join("blobs").join(late);
        assert!(late.exists());
        let refused = restore(&database.db, &blobs, &file(&database), KEEP).await.unwrap_err();
        assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");

        restore(&database.db, &blobs, &file(&database), REPLACE).await.unwrap();
        assert_eq!(dump(&database.db).await, before);
        check_contents(&database, &blobs, &contents).await;
        assert!(!late.exists());
    }

    async fn nobody_is_logged_in_after_a_restore_unless_asked_for(database: TestDatabase) {
        let blobs = open_blobs(&database);
        fill(&database, &blobs).await;
        backup(&database.db, &blobs, &database.clock, &file(&database)).await.unwrap();
        let count = async |table: &str| {
            let mut conn = database.db.conn().await.unwrap();
            let sql = format!("SELECT COUNT(*) FROM {table}");
            let (count,): (i64,) = query(sql).fetch_one(&mut conn).await.unwrap();
            count
        };
        for keep_sessions in [true, false] {
            let how = Restoring { replace: true, keep_sessions };
            restore(&database.db, &blobs, &file(&database), how).await.unwrap();
            for table in ["sessions", "refresh_tokens", "mailed_links"] {
                assert_eq!(count(table).await, i64::from(keep_sessions), "{table}");
            }
            assert_eq!((count("users").await, count("api_keys").await), (1, 1));
        }
        let now = database.clock.now();
        assert_eq!(valid_keys(&database.db, now).await.unwrap(), 1);
        let mut conn = database.db.conn().await.unwrap();
        query("UPDATE api_keys SET expires_at = $1").bind(now).execute(&mut conn).await.unwrap();
        assert_eq!(valid_keys(&database.db, now).await.unwrap(), 0);
    }

    async fn a_backup_is_of_one_moment_although_the_service_runs(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let (db, clock) = (database.db.clone(), database.clock.clone());
        let writing = async {
            for _ in 0..120 {
                // Each transaction adds a config and an artifact.
                let mut tx = db.begin().await.unwrap();
                insert_config(&mut tx, clock.ulid(), "x", clock.now()).await;
                insert_artifact(&mut tx, clock.ulid(), None, clock.now()).await;
                tx.commit().await.unwrap();
            }
        };
        let backing_up = async {
            for number in 0..3 {
                let path = database.dir().join(format!("{number}.zip"));
                backup(&database.db, &blobs, &database.clock, &path).await.unwrap();
                let rows =
                    |name| manifest(&path).tables.iter().find(|it| it.name == name).unwrap().rows;
                assert_eq!(rows("configs"), rows("artifacts"));
            }
        };
        futures_util::future::join(writing, backing_up).await;
    }
}

fn manifest(path: &Path) -> Manifest {
    let mut zip = zip::ZipArchive::new(fs_err::File::open(path).unwrap()).unwrap();
    let mut text = String::new();
    zip.by_name(MANIFEST).unwrap().read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_file_that_is_not_whole_changes_nothing() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        fill(&database, &blobs).await;
        backup(&database.db, &blobs, &database.clock, &file(&database)).await.unwrap();
        let whole = fs_err::read(file(&database)).unwrap();
        let target = TestDatabase::sqlite().await;
        let target_blobs = open_blobs(&target);
        let broken = target.dir().join("broken.zip");
        insert_config(
            &mut target.db.conn().await.unwrap(),
            target.clock.ulid(),
            "x",
            target.clock.now(),
        )
        .await;
        let mut expected = dump(&target.db).await;
        let mut refusals = 0;
        for at in (10..whole.len()).step_by(whole.len() / 23) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs_err::write(&broken, &bytes).unwrap();
            match restore(&target.db, &target_blobs, &broken, REPLACE).await {
                Err(_) => refusals += 1,
                // A byte that nobody reads, such as one of a time.
                Ok(_) => expected = dump(&database.db).await,
            }
            assert!(dump(&target.db).await == expected);
        }
        assert!(refusals > 5);
        for length in [0, 100, whole.len() / 2, whole.len() - 1] {
            fs_err::write(&broken, &whole[..length]).unwrap();
            let refused = restore(&target.db, &target_blobs, &broken, REPLACE).await.unwrap_err();
            assert!(matches!(refused, BackupError::Damaged(_)), "{refused:?}");
        }
    });
}

#[test]
fn content_that_is_damaged_is_named_and_the_rest_is_backed_up() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        fill(&database, &blobs).await;
        let mut conn = database.db.conn().await.unwrap();
        let sql = "SELECT object_key FROM blobs WHERE size_bytes = 2500000";
        let (key,): (String,) = query(sql).fetch_one(&mut conn).await.unwrap();
        let object = database.dir().join("blobs").join(&key);
        let mut bytes = fs_err::read(&object).unwrap();
        bytes[1_500_000] ^= 1;
        fs_err::write(&object, bytes).unwrap();

        let written =
            backup(&database.db, &blobs, &database.clock, &file(&database)).await.unwrap();
        assert_eq!(written.objects, 3);
        assert_eq!(written.damaged, [key]);
        assert!(written.to_string().contains("damaged"));
        let target = TestDatabase::sqlite().await;
        let read = restore(&target.db, &open_blobs(&target), &file(&database), KEEP).await.unwrap();
        assert_eq!(read, written);
    });
}

#[test]
fn content_that_is_gone_or_cut_short_is_named_too() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        fill(&database, &blobs).await;
        let mut conn = database.db.conn().await.unwrap();
        let sql = "SELECT object_key FROM blobs WHERE size_bytes > 0 AND refs > 0 \
                   ORDER BY size_bytes = 2500000";
        let keys: Vec<(String,)> = query(sql).fetch_all(&mut conn).await.unwrap();
        let object = |key: &str| database.dir().join("blobs").join(key);
        let [gone, .., short] = keys.as_slice() else { panic!("{keys:?}") };
        fs_err::remove_file(object(&gone.0)).unwrap();
        for length in [2_400_000, 1_000, 0] {
            let file = fs_err::OpenOptions::new().write(true).open(object(&short.0)).unwrap();
            file.set_len(length).unwrap();
            let to = database.dir().join(format!("{length}.zip"));
            let written = backup(&database.db, &blobs, &database.clock, &to).await.unwrap();
            let damaged: BTreeSet<&str> = written.damaged.iter().map(String::as_str).collect();
            assert_eq!(damaged, BTreeSet::from([gone.0.as_str(), short.0.as_str()]));
        }
    });
}

#[test]
fn a_store_that_does_not_answer_is_no_backup_without_content() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        fill(&database, &blobs).await;
        let directory = database.dir().join("blobs");
        fs_err::rename(&directory, database.dir().join("away")).unwrap();
        fs_err::write(&directory, "no directory").unwrap();
        let refused = backup(&database.db, &blobs, &database.clock, &file(&database)).await;
        assert!(matches!(refused, Err(BackupError::Content(_))), "{refused:?}");
        assert!(!file(&database).exists());
        fs_err::remove_file(&directory).unwrap();
        fs_err::rename(database.dir().join("away"), &directory).unwrap();
        let written = backup(&database.db, &blobs, &database.clock, &file(&database)).await;
        assert_eq!(written.unwrap().damaged, Vec::<String>::new());
    });
}

#[test]
fn content_that_nobody_refers_to_is_left_out() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        let mut conn = database.db.conn().await.unwrap();
        let stored = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
        let blob = blobs.refer(&mut conn, &test_scope(), &stored).await.unwrap();
        blobs.release(&mut conn, &test_scope(), &blob.hash).await.unwrap();
        let written =
            backup(&database.db, &blobs, &database.clock, &file(&database)).await.unwrap();
        assert_eq!(written, Summary::default());
    });
}

#[test]
fn nothing_is_overwritten_and_nothing_half_written_stays() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        fs_err::write(file(&database), "precious").unwrap();
        let refused = backup(&database.db, &blobs, &database.clock, &file(&database)).await;
        assert!(matches!(refused, Err(BackupError::Exists(_))));
        assert_eq!(fs_err::read(file(&database)).unwrap(), b"precious");

        let mut conn = database.db.conn().await.unwrap();
        // No JSON, so that a row of it cannot be written.
        let columns = [
            ("hash", "h".into()),
            ("size_bytes", 1.into()),
            ("stored_bytes", 1.into()),
            ("object_key", "00/x".into()),
            ("compressed", true.into()),
            ("chunks", Value::from(AsJson("no list"))),
            ("refs", 1.into()),
            ("created_at", database.clock.now().into()),
        ];
        insert(&mut conn, "blobs", &columns).await;
        let other = database.dir().join("other.zip");
        backup(&database.db, &blobs, &database.clock, &other).await.unwrap_err();
        let names: Vec<String> = fs_err::read_dir(database.dir())
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .filter(|it| it.contains("zip"))
            .collect();
        assert_eq!(names, ["backup.zip"]);
    });
}

#[test]
fn a_backup_of_a_later_program_is_refused() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        backup(&database.db, &blobs, &database.clock, &file(&database)).await.unwrap();
        let mut manifest = manifest(&file(&database));
        manifest.schema_version = 999;
        let later = database.dir().join("later.zip");
        let mut zip = zip::ZipWriter::new(fs_err::File::create(&later).unwrap());
        zip.start_file(MANIFEST, zip::write::SimpleFileOptions::default()).unwrap();
        serde_json::to_writer(&mut zip, &manifest).unwrap();
        zip.finish().unwrap();
        let refused = restore(&database.db, &blobs, &later, REPLACE).await.unwrap_err();
        assert!(matches!(refused, BackupError::TooNew { found: 999, .. }), "{refused}");
    });
}
