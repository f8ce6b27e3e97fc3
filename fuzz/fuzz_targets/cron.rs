#![no_main]

use libfuzzer_sys::fuzz_target;
use modelyard_flow::schedule::cron::Cron;
use modelyard_kernel::Time;

#[path = "../entries/flow.rs"]
mod entries;

fuzz_target!(|bytes: &[u8]| entries::cron(bytes));
