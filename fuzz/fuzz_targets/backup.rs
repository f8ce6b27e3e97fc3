#![no_main]

use libfuzzer_sys::fuzz_target;
use modelyard::backup;
use modelyard_kernel::db::Options;
use modelyard_kernel::{Blobs, Clock, Db};

#[path = "../entries/backup.rs"]
mod entries;

fuzz_target!(|bytes: &[u8]| entries::backup(bytes));
