//! What the operating system says about itself.

use rustix::system::uname;

/// The IANA name of the machine's time zone; `UTC` when it has none.
pub(super) fn timezone() -> String {
    jiff::tz::TimeZone::system().iana_name().unwrap_or("UTC").to_owned()
}

/// Operating system, release and architecture, joined as Python does.
pub(super) fn platform() -> String {
    let it = uname();
    let parts = [it.sysname(), it.release(), it.machine()];
    parts.map(|part| part.to_string_lossy().into_owned()).join("-")
}

/// The machine's name.
pub(super) fn hostname() -> String {
    uname().nodename().to_string_lossy().into_owned()
}
