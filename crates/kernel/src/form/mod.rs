//! Reading JSON from outside: every violation of a request is collected, none is guessed around.
//!
//! A reader walks the document through [`Node`]s, which know where they are and where to report.
//! Reading goes on after a violation, so that the client learns about all of them at once:
//!
//! ```
//! use modelyard_kernel::form::{Node, Report};
//!
//! let body = serde_json::json!({"name": 5});
//! let report = Report::new();
//! let object = Node::body(&body, &report).object().expect("an object");
//! let name = object.required("name").and_then(|node| node.string());
//! let data = object.required("data").and_then(|node| node.object());
//! assert!(name.is_none() && data.is_none());
//! let violations = report.finish().expect_err("both are wrong");
//! assert_eq!(violations[0].kind, "string_type");
//! assert_eq!(violations[1].kind, "missing");
//! ```
//!
//! Types, messages and coercions are the ones that clients of this contract know: those of
//! pydantic's lax mode (`"7"` is an integer, `1.0` too, `1.5` is not). Answers stay small whatever
//! came in: at most [`MAX_VIOLATIONS`] are kept, which the answer says, and a long input is shown by its beginning.

mod body;
mod bounds;
mod coerce;
mod integers;
mod node;
mod query;
mod size;
mod tags;
mod text;
mod violation;

pub use body::parse_body;
pub(crate) use body::{MAX_DEPTH, is_json};
pub use bounds::Bounds;
pub use integers::long_integers;
pub use node::{Node, Object};
pub use query::{Query, query_bool, query_enum, query_float, query_int, query_one_of};
pub use size::Size;
pub use text::{choice, quote, shorten};
pub use violation::{Loc, MAX_VIOLATIONS, Report, Violation, Violations};
