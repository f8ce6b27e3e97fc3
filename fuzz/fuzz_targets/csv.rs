#![no_main]

use libfuzzer_sys::fuzz_target;
use modelyard_kernel::form::{Bounds, Node, Report, parse_body};
use modelyard_kernel::list::ListQuery;
use modelyard_run::artifact::read_range;
use modelyard_run::config::schema::{ConfigSchema, Field, FieldKind, Length};
use modelyard_run::frame::{Frame, Frames};
use modelyard_run::runner::ArchiveLimits;
use modelyard_run::runner::strangers::{News, Told, extract, unpack};
use modelyard_run::task::http::FIELDS as TASK_FIELDS;

#[path = "../entries/run.rs"]
#[expect(dead_code, reason = "each target takes one of the entries")]
mod entries;

fuzz_target!(|bytes: &[u8]| entries::csv(bytes));
