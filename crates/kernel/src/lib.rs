//! What every slice stands on: ids, time, failures, the caller, the databases, the blobs.
//!
//! The kernel knows no slice. If you are about to add something here, check that at least three
//! slices need it and that it does not change when one of them changes.

pub mod address;
pub mod background;
pub mod blobs;
pub mod body;
pub mod bulk;
pub mod caller;
pub mod clock;
pub mod db;
pub mod event;
pub mod failpoint;
pub mod failure;
pub mod form;
pub mod id;
pub mod list;
pub mod part;
pub mod reply;

pub use address::{ClientAddress, IsSecure, RequestId};
pub use background::Background;
pub use blobs::{BlobRef, Blobs};
pub use body::{BodyLimit, JsonBody, LargeBody};
pub use caller::{Actor, Caller, DEPLOYMENT, Grants, Permission, Proof, Scope};
pub use clock::{Clock, Time};
pub use db::{Conn, Db, Tx};
pub use event::Event;
pub use failure::{Failure, Kind};
pub use id::Ulid;
pub use part::{
    Assignment, Failed, Health, HealthCheck, Launch, Launcher, Part, Policy, Progress, RequestKey,
    Verdict, Wishes, Work,
};

/// What an operation returns.
pub type Result<T, E = Failure> = std::result::Result<T, E>;
