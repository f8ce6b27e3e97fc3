//! What strangers send: the functions that `fuzz/` fuzzes, on every test run, over the seeds there
//! and over generated texts.

use std::path::Path;

use modelyard_kernel::Time;
use proptest::prelude::*;

use crate::schedule::cron::Cron;

#[path = "../../../fuzz/entries/flow.rs"]
mod entries;

#[test]
fn seeds_of_cron_expressions_are_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/cron");
    let files: Vec<_> =
        fs_err::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        entries::cron(&fs_err::read(file).unwrap());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text: String) {
        entries::cron(&bytes);
        entries::cron(text.as_bytes());
    }

    #[test]
    fn what_is_nearly_a_cron_expression_is_read_or_refused(
        fields in "(([*]|[0-9]{1,3}|mon|JAN|L|\u{663})([-/,#W][0-9*]{0,2}){0,2}[ \t]{1,2}){4,6}",
        last in "(@[a-z]{0,8}|[*0-7])",
        zone in "(\n(UTC|Europe/Berlin|America/Santiago|[A-Za-z/.]{0,12}))?",
    ) {
        for text in [format!("{fields}{last}{zone}"), format!("{last}{zone}")] {
            entries::cron(text.as_bytes());
        }
    }
}
