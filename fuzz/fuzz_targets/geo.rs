#![no_main]

use libfuzzer_sys::fuzz_target;
use modelyard_kernel::form::{Node, Report, parse_body};
use modelyard_ml::ml::{TrainRequest, strangers};
use modelyard_ml::project::{manifest, mlproject};
use modelyard_run::frame::Frames;

#[path = "../entries/ml.rs"]
#[expect(dead_code, reason = "each target takes one of the entries")]
mod entries;

fuzz_target!(|bytes: &[u8]| entries::geo(bytes));
