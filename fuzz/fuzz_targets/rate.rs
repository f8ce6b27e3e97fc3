#![no_main]

use libfuzzer_sys::fuzz_target;
use modelyard_ops::rate::model::Policy;

#[path = "../entries/ops.rs"]
mod entries;

fuzz_target!(|bytes: &[u8]| entries::rate(bytes));
