//! Content: comes back as it went, is stored once, and is never given out damaged.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::trouble::{set_mode, without_privileges};
use bytes::Bytes;
use futures_util::StreamExt;
use modelyard_kernel::blobs::{BlobRead, CHUNK, Stored, failure_of};
use modelyard_kernel::db::query;
use modelyard_kernel::{BlobRef, Blobs, Clock, Kind};
use modelyard_testkit::{TestDatabase, on_both_databases, run, scope_of, test_scope};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Bytes that no compression makes smaller, the same for each `seed`.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Bytes that shrink a lot.
fn text(length: usize) -> Bytes {
    b"rainfall,mean_temperature,disease_cases\n".iter().copied().cycle().take(length).collect()
}

fn open_blobs(database: &TestDatabase) -> Blobs {
    Blobs::directory(&database.dir().join("blobs"), database.clock.clone()).unwrap()
}

/// What the slices do: refer in a transaction, and settle.
async fn keep(database: &TestDatabase, blobs: &Blobs, stored: Stored) -> BlobRef {
    let mut tx = database.db.begin().await.unwrap();
    let blob = blobs.refer(&mut tx, &test_scope(), &stored).await.unwrap();
    tx.commit().await.unwrap();
    stored.settle(true).await;
    blob
}

async fn put(database: &TestDatabase, blobs: &Blobs, content: Bytes) -> BlobRef {
    let stored = blobs.put(content).await.unwrap();
    keep(database, blobs, stored).await
}

async fn open(database: &TestDatabase, blobs: &Blobs, hash: &str) -> BlobRead {
    let mut conn = database.db.conn().await.unwrap();
    blobs.open(&mut conn, &test_scope(), hash).await.unwrap()
}

async fn read(blob: &BlobRead, range: std::ops::Range<u64>) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut stream = std::pin::pin!(blob.stream(range));
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn objects(database: &TestDatabase) -> Vec<PathBuf> {
    files(&database.dir().join("blobs"))
}

on_both_databases! {
    async fn content_of_any_size_comes_back(database: TestDatabase) {
        let blobs = open_blobs(&database);
        for length in [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 7 * CHUNK + 12345] {
            for content in [text(length), noise(length as u64, length)] {
                let blob = put(&database, &blobs, content.clone()).await;
                assert_eq!(blob.size_bytes, length as u64);
                let opened = open(&database, &blobs, &blob.hash).await;
                assert_eq!(opened.size_bytes(), length as u64);
                assert_eq!(opened.hash(), blob.hash);
                assert!(opened.bytes(u64::MAX).await.unwrap() == content, "{length}");
                assert!(read(&opened, 0..u64::MAX).await.unwrap() == content, "{length}");
                assert_eq!(opened.bytes((length as u64).saturating_sub(1)).await.is_err(), length > 0);
            }
        }
    }

    async fn content_is_stored_once_and_kept_while_anyone_refers_to_it(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let first = put(&database, &blobs, text(5000)).await;
        let second = put(&database, &blobs, text(5000)).await;
        assert_eq!(first, second);
        assert_eq!(objects(&database).len(), 1);

        let mut conn = database.db.conn().await.unwrap();
        blobs.release(&mut conn, &test_scope(), &first.hash).await.unwrap();
        database.clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(blobs.sweep(&database.db, &test_scope()).await.unwrap(), 0);
        assert_eq!(open(&database, &blobs, &first.hash).await.bytes(u64::MAX).await.unwrap(), text(5000));

        blobs.release(&mut conn, &test_scope(), &first.hash).await.unwrap();
        assert_eq!(blobs.sweep(&database.db, &test_scope()).await.unwrap(), 0, "not before the grace");
        database.clock.advance(Duration::from_secs(3601));
        assert_eq!(blobs.sweep(&database.db, &test_scope()).await.unwrap(), 1);
        assert!(objects(&database).is_empty());
        assert!(blobs.open(&mut conn, &test_scope(), &first.hash).await.is_err());
    }

    async fn content_that_is_wanted_again_within_the_grace_stays(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let blob = put(&database, &blobs, text(5000)).await;
        let mut conn = database.db.conn().await.unwrap();
        blobs.release(&mut conn, &test_scope(), &blob.hash).await.unwrap();
        database.clock.advance(Duration::from_secs(3000));
        put(&database, &blobs, text(5000)).await;
        database.clock.advance(Duration::from_secs(3000));
        assert_eq!(blobs.sweep(&database.db, &test_scope()).await.unwrap(), 0);
        assert_eq!(open(&database, &blobs, &blob.hash).await.bytes(u64::MAX).await.unwrap(), text(5000));
    }

    async fn services_keep_their_content_apart(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let blob = put(&database, &blobs, text(5000)).await;
        let mut conn = database.db.conn().await.unwrap();
        let other = scope_of("default", "another");
        assert!(blobs.open(&mut conn, &other, &blob.hash).await.is_err());
        blobs.release(&mut conn, &other, &blob.hash).await.unwrap();
        database.clock.advance(Duration::from_secs(3601));
        assert_eq!(blobs.sweep(&database.db, &other).await.unwrap(), 0);
        assert_eq!(objects(&database).len(), 1);
    }

    async fn what_no_row_came_to_refer_to_is_removed(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let stored = blobs.put(text(5000)).await.unwrap();
        let mut tx = database.db.begin().await.unwrap();
        blobs.refer(&mut tx, &test_scope(), &stored).await.unwrap();
        drop(tx);
        stored.settle(false).await;
        assert!(objects(&database).is_empty());
        let mut conn = database.db.conn().await.unwrap();
        let (rows,): (i64,) = query("SELECT COUNT(*) FROM blobs").fetch_one(&mut conn).await.unwrap();
        assert_eq!(rows, 0);
    }

    async fn what_is_stored_already_is_not_written_again(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let scope = test_scope();
        let first = put(&database, &blobs, text(5000)).await;
        let again = blobs.put_once(&database.db, &scope, text(5000)).await.unwrap();
        assert_eq!((again.blob(), objects(&database).len()), (&first, 1));
        // Not ours to remove when our transaction fails.
        again.settle(false).await;
        drop(blobs.put_once(&database.db, &scope, text(5000)).await.unwrap());
        assert_eq!(objects(&database).len(), 1);
        let mut conn = database.db.conn().await.unwrap();
        let again = blobs.put_once(&database.db, &scope, text(5000)).await.unwrap();
        blobs.refer(&mut conn, &scope, &again).await.unwrap();
        again.settle(true).await;
        let (references,): (i64,) = query("SELECT refs FROM blobs").fetch_one(&mut conn).await.unwrap();
        assert_eq!(references, 2);

        // What nobody refers to may be removed at any moment.
        blobs.release(&mut conn, &scope, &first.hash).await.unwrap();
        blobs.release(&mut conn, &scope, &first.hash).await.unwrap();
        let anew = blobs.put_once(&database.db, &scope, text(5000)).await.unwrap();
        assert_eq!(objects(&database).len(), 2);
        drop(anew);
        let other = blobs.put_once(&database.db, &scope, text(6000)).await.unwrap();
        assert_eq!(objects(&database).len(), 2);
        drop(other);
        assert_eq!(objects(&database).len(), 1);
    }

    async fn what_is_kept_stays_for_its_time_whoever_else_had_the_same(database: TestDatabase) {
        let (blobs, scope) = (open_blobs(&database), test_scope());
        let day = Duration::from_secs(24 * 3600);
        let until = |days: u32| database.clock.now().after(day * days);
        let keep_until = async |until| {
            let stored = blobs.put(text(5000)).await.unwrap();
            let mut conn = database.db.conn().await.unwrap();
            blobs.keep(&mut conn, &scope, &stored, until).await.unwrap();
            drop(conn);
            stored.settle(true).await;
        };
        let swept = async || {
            let swept = blobs.sweep(&database.db, &scope).await.unwrap();
            assert_eq!(objects(&database).len(), 1 - swept);
            swept
        };
        keep_until(until(10)).await;
        // For less long, or by a row that goes soon.
        keep_until(until(1)).await;
        database.clock.advance(2 * day);
        assert_eq!(swept().await, 0);
        let blob = put(&database, &blobs, text(5000)).await;
        keep_until(until(10)).await;
        let mut conn = database.db.conn().await.unwrap();
        blobs.release(&mut conn, &scope, &blob.hash).await.unwrap();
        drop(conn);
        database.clock.advance(2 * day);
        assert_eq!(swept().await, 0);
        // It was kept three times.
        for gone in [0, 0, 1] {
            let mut conn = database.db.conn().await.unwrap();
            blobs.let_go(&mut conn, &scope, &blob.hash).await.unwrap();
            drop(conn);
            database.clock.advance(day);
            assert_eq!(swept().await, gone);
        }
    }

    async fn many_who_store_the_same_at_once_store_it_once(database: TestDatabase) {
        let blobs = open_blobs(&database);
        let all = futures_util::future::join_all((0..12).map(|_| put(&database, &blobs, text(3000)))).await;
        assert!(all.windows(2).all(|it| it[0] == it[1]));
        assert_eq!(objects(&database).len(), 1);
        let mut conn = database.db.conn().await.unwrap();
        let (references,): (i64,) = query("SELECT refs FROM blobs").fetch_one(&mut conn).await.unwrap();
        assert_eq!(references, 12);
    }
}

#[test]
fn every_range_is_what_a_slice_of_the_whole_is() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        let length = 3 * CHUNK + 777;
        let mut runner = TestRunner::deterministic();
        for content in [text(length), noise(7, length)] {
            let blob = put(&database, &blobs, content.clone()).await;
            let opened = open(&database, &blobs, &blob.hash).await;
            let near = |it: usize| it.saturating_sub(2)..it + 3;
            let edge = prop_oneof![
                near(0),
                near(CHUNK),
                near(2 * CHUNK),
                near(3 * CHUNK),
                near(length),
                0..length
            ];
            let ranges = (edge.clone(), edge);
            for _ in 0..120 {
                let (a, b) = ranges.new_tree(&mut runner).unwrap().current();
                let (from, to) = (a.min(b), a.max(b));
                let expected = &content[from.min(length)..to.min(length)];
                let found = read(&opened, from as u64..to as u64).await.unwrap();
                assert!(found == expected, "{from}..{to}");
            }
            assert!(read(&opened, 10..10).await.unwrap().is_empty());
            assert!(read(&opened, u64::MAX - 1..u64::MAX).await.unwrap().is_empty());
        }
    });
}

#[test]
fn content_that_came_in_pieces_is_the_same_content() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        let content = noise(3, 2 * CHUNK + 5);
        let whole = put(&database, &blobs, content.clone()).await;
        for size in [1000, 65_536, CHUNK, CHUNK + 1] {
            let mut writer = blobs.writer();
            let mut rest = content.clone();
            while !rest.is_empty() {
                writer.write(rest.split_to(size.min(rest.len()))).await.unwrap();
            }
            let stored = writer.finish().await.unwrap();
            assert_eq!(stored.blob(), &whole);
            stored.settle(false).await;
        }
    });
}

#[test]
fn what_shrinks_is_compressed_and_what_does_not_is_not() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        put(&database, &blobs, text(2 * CHUNK)).await;
        let size = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
        assert!(size(&objects(&database)[0]) < CHUNK as u64 / 10);
        put(&database, &blobs, noise(1, 2 * CHUNK)).await;
        let largest = objects(&database).iter().map(size).max().unwrap();
        assert_eq!(largest, 2 * CHUNK as u64);
    });
}

#[test]
fn damaged_content_is_an_error_and_never_wrong_bytes() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        for content in [text(2 * CHUNK + 9), noise(5, 2 * CHUNK + 9)] {
            let blob = put(&database, &blobs, content.clone()).await;
            let opened = open(&database, &blobs, &blob.hash).await;
            let file = objects(&database).pop().unwrap();
            let whole = fs_err::read(&file).unwrap();
            for at in [0, whole.len() / 2, whole.len() - 1] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1;
                fs_err::write(&file, &damaged).unwrap();
                let error = read(&opened, 0..u64::MAX).await.unwrap_err();
                let failure = opened.bytes(u64::MAX).await.unwrap_err();
                assert_eq!((failure_of(error).code(), failure.code()), ("internal", "internal"));
            }
            // The first chunk is read and right although the last is damaged.
            assert!(read(&opened, 0..CHUNK as u64).await.unwrap() == content[..CHUNK]);
            fs_err::write(&file, &whole[..whole.len() - 1]).unwrap();
            read(&opened, 0..u64::MAX).await.unwrap_err();
            assert_eq!(opened.bytes(u64::MAX).await.unwrap_err().code(), "internal");
            fs_err::remove_file(&file).unwrap();
            read(&opened, 0..1).await.unwrap_err();
            assert_eq!(opened.bytes(u64::MAX).await.unwrap_err().code(), "internal");
        }
    });
}

#[test]
fn a_store_that_does_not_answer_is_an_outage_and_no_damage() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        let blob = put(&database, &blobs, text(100)).await;
        let opened = open(&database, &blobs, &blob.hash).await;
        let file = objects(&database).pop().unwrap();
        fs_err::remove_file(&file).unwrap();
        // It leads to itself, so that it is there and cannot be opened.
        fs_err::os::unix::fs::symlink(&file, &file).unwrap();
        let failure = opened.bytes(u64::MAX).await.unwrap_err();
        assert_eq!((failure.kind(), failure.code()), (Kind::Unavailable, "storage_unreachable"));
        let streamed = failure_of(read(&opened, 0..1).await.unwrap_err());
        assert_eq!(streamed.code(), "storage_unreachable");
    });
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_behind() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        for length in [100, 12 * CHUNK] {
            let mut writer = blobs.writer();
            writer.write(noise(9, length)).await.unwrap();
            drop(writer);
        }
        // Removing happens on a thread of its own.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !objects(&database).is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", objects(&database));
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn what_a_killed_process_left_of_an_upload_is_removed_after_a_day() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        put(&database, &blobs, text(100)).await;
        let directory = database.dir().join("blobs/00");
        fs_err::create_dir_all(&directory).unwrap();
        let left = directory.join(format!("{}#1", database.clock.ulid()));
        for path in [&left, &directory.join("notes#1"), &directory.join("notes")] {
            fs_err::write(path, "x").unwrap();
        }
        blobs.sweep(&database.db, &test_scope()).await.unwrap();
        assert!(left.exists());
        database.clock.advance(Duration::from_secs(25 * 3600));
        blobs.sweep(&database.db, &test_scope()).await.unwrap();
        assert!(!left.exists());
        assert_eq!(objects(&database).len(), 3);
    });
}

#[test]
fn a_directory_that_may_not_be_written_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let blobs = Blobs::directory(&path.join("blobs"), Clock::system()).unwrap();
    set_mode(directory.path(), 0o755);
    set_mode(&path.join("blobs"), 0o555);
    without_privileges(move || {
        run(async move {
            for length in [10, 12 * CHUNK] {
                let mut writer = blobs.writer();
                let refused = match writer.write(noise(1, length)).await {
                    Ok(()) => writer.finish().await.map(drop).unwrap_err(),
                    Err(refused) => refused,
                };
                assert_eq!(refused.code(), "storage_read_only");
            }
            let error = Blobs::directory(&path.join("more"), Clock::system()).unwrap_err();
            assert!(error.to_string().contains("more"), "{error}");
        });
    });
}

#[test]
fn large_content_passes_through_in_constant_memory() {
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs = open_blobs(&database);
        let before = peak_memory();
        let mut writer = blobs.writer();
        for part in 0..96 {
            writer.write(noise(part, CHUNK)).await.unwrap();
        }
        let stored = writer.finish().await.unwrap();
        let blob = keep(&database, &blobs, stored).await;
        let opened = open(&database, &blobs, &blob.hash).await;
        let mut stream = std::pin::pin!(opened.stream(0..u64::MAX));
        let mut part = 0;
        while let Some(chunk) = stream.next().await {
            assert!(chunk.unwrap() == noise(part, CHUNK));
            part += 1;
        }
        assert_eq!(part, 96);
        let grown = peak_memory() - before;
        assert!(grown < 64 << 20, "{} MiB more than before", grown >> 20);
    });
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
