//! As in `run.rs`, what is fuzzed of `modelyard`.

use super::{Blobs, Clock, Db, Options, backup};

/// A file that is said to be a backup.
pub fn backup(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("threads").block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("backup.zip");
        fs_err::write(&file, bytes).expect("a file in it");
        let clock = Clock::system();
        let db = Db::connect(&Options::default()).await.expect("a database in memory");
        modelyard_schema::migrate(&db, &clock).await.expect("its tables");
        let blobs = Blobs::directory(&directory.path().join("blobs"), clock).expect("a store");
        // Refused or restored; twice, since what is there must not matter.
        let how = backup::Restoring { replace: true, keep_sessions: true };
        let once = backup::restore(&db, &blobs, &file, how).await;
        let again = backup::restore(&db, &blobs, &file, how).await;
        assert_eq!(once.is_ok(), again.is_ok());
        db.close().await;
    });
}
