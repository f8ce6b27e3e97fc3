//! What strangers send as a backup: the function that `fuzz/` fuzzes, on every test run, over whole
//! backups of which something was changed.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use modelyard_kernel::db::{Options, query};
use modelyard_kernel::{Blobs, Clock, Db};
use modelyard_testkit::{TestDatabase, run, test_scope};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::format::MANIFEST;
use crate::backup;

#[path = "../../../../fuzz/entries/backup.rs"]
mod entries;

type Entries = BTreeMap<String, Vec<u8>>;

/// The entries of a backup with a config and an object.
fn whole() -> Entries {
    let mut bytes = Vec::new();
    run(async {
        let database = TestDatabase::sqlite().await;
        let blobs =
            Blobs::directory(&database.dir().join("blobs"), database.clock.clone()).unwrap();
        let mut conn = database.db.conn().await.unwrap();
        let (scope, now) = (test_scope(), database.clock.now());
        let stored = blobs.put(bytes::Bytes::from_static(b"content")).await.unwrap();
        blobs.refer(&mut conn, &scope, &stored).await.unwrap();
        stored.settle(true).await;
        let sql = "INSERT INTO configs (tenant_id, service_id, id, name, tags, data, revision, \
            created_at, updated_at) VALUES ($1, $2, $3, 'a', '[]', '{}', 1, $4, $4)";
        let id = database.clock.ulid();
        let insert = query(sql).bind(scope.tenant()).bind(scope.service()).bind(id).bind(now);
        insert.execute(&mut conn).await.unwrap();
        let file = database.dir().join("backup.zip");
        backup::backup(&database.db, &blobs, &database.clock, &file).await.unwrap();
        bytes = fs_err::read(file).unwrap();
    });
    entries::backup(&bytes);
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    (0..zip.len())
        .map(|index| {
            let mut entry = zip.by_index(index).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.name().unwrap().into_owned(), content)
        })
        .collect()
}

/// A backup of these entries, whose manifest says that they are what was written.
fn sealed(mut entries: Entries) -> Vec<u8> {
    let manifest = serde_json::from_slice(&entries[MANIFEST]);
    if let Ok(serde_json::Value::Object(mut manifest)) = manifest {
        if let Some(sums) = manifest.get_mut("sha256").and_then(|it| it.as_object_mut()) {
            for (name, sum) in sums {
                if let Some(content) = entries.get(name) {
                    let digest = Sha256::digest(content);
                    let hex: String = digest.iter().map(|it| format!("{it:02x}")).collect();
                    *sum = hex.into();
                }
            }
        }
        entries.insert(MANIFEST.to_owned(), serde_json::to_vec(&manifest).unwrap());
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(&content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_changed_backup_is_restored_or_refused() {
    let whole = whole();
    let names: Vec<&String> = whole.iter().filter(|it| !it.1.is_empty()).map(|it| it.0).collect();
    let change = (any::<Index>(), any::<Index>(), prop_oneof!["[0-9\\[\\]{}\",:a]{0,2}", ".{0,3}"]);
    let changes = (proptest::collection::vec(change, 0..3), any::<bool>(), any::<(Index, u8)>());
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&changes, |(changes, is_sealed, (at, byte))| {
        let mut entries = whole.clone();
        for (name, at, text) in changes {
            let content = entries.get_mut(names[name.index(names.len())]).unwrap();
            let at = at.index(content.len().max(1)).min(content.len());
            let until = content.len().min(at + 1);
            content.splice(at..until, text.into_bytes());
        }
        let mut bytes = sealed(entries);
        if !is_sealed {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        entries::backup(&bytes);
        Ok(())
    });
    run.unwrap();
}

proptest! {
    #![proptest_config(Config { cases: 20, ..Config::default() })]

    #[test]
    fn any_file_is_refused(bytes: Vec<u8>) {
        entries::backup(&bytes);
    }
}
