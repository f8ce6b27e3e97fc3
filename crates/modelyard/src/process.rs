//! What a process that serves asks of the system about itself.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Files that are open beside connections: the database's, content, pipes of scripts.
const OTHER_FILES: u64 = 256;

/// Lets this process open as many files as it may, and keeps others of the same user from reading
/// its environment and memory: scripts run as that user. Says so when connections could use up all
/// files.
pub(crate) fn prepare(max_connections: usize) {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "scripts may read the environment of this process");
    }
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = max_connections as u64 + OTHER_FILES;
    if files < wanted {
        tracing::warn!(
            files,
            wanted,
            "connections could use up all files that this process may open: raise its limit \
             (`ulimit -n`), or lower `server.max_connections`"
        );
    }
}
