//! What is written in settings: the function that `fuzz/` fuzzes, on every test run, over the seeds
//! there and over generated texts.

use std::path::Path;

use proptest::prelude::*;

use crate::rate::model::Policy;

#[path = "../../../fuzz/entries/ops.rs"]
mod entries;

#[test]
fn seeds_of_limits_are_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/rate");
    let files: Vec<_> =
        fs_err::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        entries::rate(&fs_err::read(file).unwrap());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text: String) {
        entries::rate(&bytes);
        entries::rate(text.as_bytes());
    }

    #[test]
    fn what_is_nearly_a_limit_is_read_or_refused(
        text in "(quota )?[0-9]{0,11}/?(second|minute|hour|day|month|week|)( burst [0-9]{0,11})?( per [a-z]{0,8})?",
    ) {
        entries::rate(text.as_bytes());
    }
}
