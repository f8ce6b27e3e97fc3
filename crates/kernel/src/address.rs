//! Where a request comes from: what the edge knows of its connection, for those who decide by it.

use std::net::IpAddr;

use http::Extensions;

use crate::Ulid;

/// The address of whoever asks: of the connection's other end, or what a proxy that the operator
/// trusts says of it. An IPv4 address is one, also when it came in the form of an IPv6 address.
///
/// A request has none when it did not come over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// That of a request with these extensions.
    pub fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get().map(|Self(it)| *it)
    }
}

/// The id of a request, in every line that the log has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub Ulid);

impl RequestId {
    /// That of a request with these extensions.
    pub fn of(extensions: &Extensions) -> Option<Ulid> {
        extensions.get().map(|Self(it)| *it)
    }
}

/// Whether the client asks over TLS, as far as can be told here.
///
/// The connection is TLS, or a trusted proxy says that its one is, or clients only know an `https://`
/// address. Cookies are `Secure` then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsSecure(pub bool);

impl IsSecure {
    /// That of a request with these extensions; not when nobody knows.
    pub fn of(extensions: &Extensions) -> bool {
        extensions.get().is_some_and(|Self(it)| *it)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_request_that_nothing_is_known_of_is_not_secure() {
        let mut extensions = Extensions::new();
        assert_eq!((ClientAddress::of(&extensions), IsSecure::of(&extensions)), (None, false));
        extensions.insert(ClientAddress(Ipv4Addr::LOCALHOST.into()));
        extensions.insert(IsSecure(true));
        assert_eq!(ClientAddress::of(&extensions), Some(Ipv4Addr::LOCALHOST.into()));
        assert!(IsSecure::of(&extensions));
    }
}
