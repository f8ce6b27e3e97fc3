//! Whose request it is, as far as its address tells: the other end of the connection, or, when that is
//! a proxy that the operator trusts, whom the proxy had at its other end.
//!
//! What a client writes itself must never count. So the entries of a header are read from the right,
//! where trusted proxies put theirs, and only as far as the first address that is not trusted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What proxies add. Whoever sends one of these is, or has, a proxy.
const TRACES: [HeaderName; 5] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
];
/// More proxies than this in a row are none.
const MOST_ENTRIES: usize = 16;
/// No address with a port and whatever else stands in an entry is longer.
const LONGEST_ENTRY: usize = 256;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// Whether the connection is TLS.
    pub(super) tls: bool,
}

/// The header in which proxies say whom they had at their other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` for the scheme.
    #[default]
    XForwardedFor,
    /// `Forwarded`, as RFC 7239 has it.
    Forwarded,
}

/// The proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Where they are; nobody is believed when this is empty.
    pub trusted: Vec<IpNet>,
    /// Where they say whom they serve.
    pub header: ForwardedHeader,
    /// Whether the operator was told of one that is not believed.
    pub(crate) told: Told,
}

/// Whether something was told; copies have it in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<AtomicBool>);

impl Told {
    /// Whether it is time to tell, which it is once.
    fn is_first(&self) -> bool {
        !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Relaxed)
    }
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Whether the client's connection is TLS; `None` when nobody says.
    pub(super) secure: Option<bool>,
    /// Whether it is on this machine, and no proxy is in between.
    pub(super) local: bool,
    /// Whether a proxy that is believed said something that cannot be read, so that the address is
    /// the proxy's.
    pub(super) doubtful: bool,
}

impl Proxies {
    /// Whose request it is that came over a connection with `peer`.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> Client {
        let address = peer.address.to_canonical();
        let secure = peer.tls.then_some(true);
        let traces = TRACES.iter().any(|it| headers.contains_key(it));
        let local = address.is_loopback() && !traces;
        let own = Client { address, secure, local, doubtful: false };
        // Most requests end here.
        if !traces {
            return own;
        }
        if !self.trusts(address) {
            if self.told.is_first() {
                tracing::warn!(
                    %address,
                    "a request came with the headers of a proxy that is not trusted: all of its clients count as \
                     one address, also when logins fail; name your proxies in `server.trusted_proxies`"
                );
            }
            return own;
        }
        let said = match self.header {
            ForwardedHeader::XForwardedFor => self.x_forwarded(headers),
            ForwardedHeader::Forwarded => self.forwarded(headers),
        };
        match said {
            Ok((said, scheme)) => {
                let address = said.unwrap_or(address);
                Client { address, secure: scheme.or(secure), local: false, doubtful: false }
            }
            Err(Unreadable) => Client { doubtful: true, ..own },
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        contain(&self.trusted, address)
    }

    fn x_forwarded(&self, headers: &HeaderMap) -> Result<Said, Unreadable> {
        let furthest = self.furthest(headers, &X_FORWARDED_FOR, |it| Ok((node(it)?, ())))?;
        // The scheme of the client's connection, as the last proxy has it.
        let scheme = headers.get_all(X_FORWARDED_PROTO).iter().next_back();
        let scheme = scheme.and_then(|it| it.to_str().ok()?.rsplit(',').next());
        Ok((furthest.map(|(address, ())| address), scheme.map(is_https)))
    }

    fn forwarded(&self, headers: &HeaderMap) -> Result<Said, Unreadable> {
        let (address, secure) = self.furthest(headers, &header::FORWARDED, element)?.unzip();
        Ok((address, secure.flatten()))
    }

    /// The first entry from the right whose address is not trusted, or the last of those that are.
    fn furthest<T>(
        &self,
        headers: &HeaderMap,
        name: &HeaderName,
        read: impl Fn(&str) -> Result<(IpAddr, T), Unreadable>,
    ) -> Result<Option<(IpAddr, T)>, Unreadable> {
        let mut seen = None;
        let mut left = MOST_ENTRIES;
        for line in headers.get_all(name).iter().rev() {
            for entry in line.as_bytes().rsplit(|it| *it == b',') {
                left = left.checked_sub(1).ok_or(Unreadable)?;
                let entry = entry.trim_ascii();
                if entry.len() > LONGEST_ENTRY {
                    return Err(Unreadable);
                }
                let (address, more) = read(std::str::from_utf8(entry).map_err(|_| Unreadable)?)?;
                let trusted = self.trusts(address);
                seen = Some((address, more));
                if !trusted {
                    return Ok(seen);
                }
            }
        }
        Ok(seen)
    }
}

/// What a proxy said: whom it serves, and whether over TLS.
type Said = (Option<IpAddr>, Option<bool>);

/// What a proxy said cannot be read.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

/// Whether one of the networks has the address.
pub(super) fn contain(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|it| it.contains(&address))
}

fn is_https(scheme: &str) -> bool {
    scheme.trim().eq_ignore_ascii_case("https")
}

/// An address, with or without brackets and port.
fn node(text: &str) -> Result<IpAddr, Unreadable> {
    let bracketed = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    bracketed
        .unwrap_or(text)
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|it| it.ip()))
        .map(|it| it.to_canonical())
        .map_err(|_| Unreadable)
}

/// An element of `Forwarded`: `for=192.0.2.60;proto=https;by=203.0.113.43`.
fn element(text: &str) -> Result<(IpAddr, Option<bool>), Unreadable> {
    let (mut address, mut secure) = (None, None);
    for pair in text.split(';') {
        let (name, value) = pair.split_once('=').ok_or(Unreadable)?;
        let value = value.trim();
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"').ok_or(Unreadable)?,
            None => value,
        };
        let name = name.trim();
        if name.eq_ignore_ascii_case("for") {
            if address.replace(node(value)?).is_some() {
                return Err(Unreadable);
            }
        } else if name.eq_ignore_ascii_case("proto") {
            secure = Some(is_https(value));
        }
    }
    Ok((address.ok_or(Unreadable)?, secure))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let trusted = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"];
        Proxies {
            trusted: trusted.map(|it| it.parse().unwrap()).to_vec(),
            header,
            told: Told::default(),
        }
    }

    fn client(proxies: &Proxies, peer: &str, headers: &[(&HeaderName, &str)]) -> Client {
        let headers = headers.iter().map(|(name, value)| {
            ((*name).clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let peer = Peer { address: peer.parse().unwrap(), tls: false };
        proxies.client(peer, &headers.collect())
    }

    fn is(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn the_operator_hears_once_of_a_proxy_that_is_not_trusted() {
        let proxies = proxies(ForwardedHeader::XForwardedFor);
        let is_told = || proxies.told.0.load(Ordering::Relaxed);
        client(&proxies, "192.0.2.9", &[]);
        client(&proxies, "10.0.0.1", &[(&X_FORWARDED_FOR, "192.0.2.1")]);
        assert!(!is_told());
        client(&proxies, "192.0.2.9", &[(&X_FORWARDED_FOR, "192.0.2.1")]);
        assert!(is_told());
        assert!(!proxies.told.is_first());
    }

    #[test]
    fn nobody_speaks_for_another_unless_trusted() {
        let forged = [
            (&X_FORWARDED_FOR, "192.0.2.1"),
            (&X_FORWARDED_PROTO, "https"),
            (&header::FORWARDED, "for=192.0.2.1;proto=https"),
        ];
        for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
            for peer in ["198.51.100.7", "11.0.0.1", "::ffff:198.51.100.7", "fe80::1"] {
                let it = client(&proxies(header), peer, &forged);
                let secure = it.secure;
                assert_eq!((it.address, secure), (is(peer).to_canonical(), None), "{peer}");
            }
            let nobody = Proxies { header, ..Proxies::default() };
            let it = client(&nobody, "127.0.0.1", &forged);
            assert_eq!((it.address, it.secure, it.local), (is("127.0.0.1"), None, false));
        }
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_clients() {
        let proxies = proxies(ForwardedHeader::XForwardedFor);
        for (said, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("192.0.2.66, 192.0.2.1", "192.0.2.1"),
            ("192.0.2.66,192.0.2.1 , 10.1.1.1,10.2.2.2", "192.0.2.1"),
            ("no address at all, 192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            // Nobody but proxies: the one that is furthest away.
            ("10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            let it = client(&proxies, "10.0.0.1", &[(&X_FORWARDED_FOR, said)]);
            assert_eq!((it.address, it.local, it.doubtful), (is(address), false, false), "{said}");
        }
        let mut headers = HeaderMap::new();
        for line in ["192.0.2.66", "192.0.2.1, 10.1.1.1", "10.2.2.2"] {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let peer = Peer { address: is("fd00::2"), tls: true };
        assert_eq!(proxies.client(peer, &headers).address, is("192.0.2.1"));
        let long = format!("{}192.0.2.1", "192.0.2.66, ".repeat(5000));
        let it = client(&proxies, "10.0.0.1", &[(&X_FORWARDED_FOR, &long)]);
        assert_eq!(it.address, is("192.0.2.1"));
    }

    #[test]
    fn what_cannot_be_read_leaves_the_proxys_address_and_a_doubt() {
        let endless = "10.1.1.1, ".repeat(20) + "10.1.1.1";
        let long = "1".repeat(LONGEST_ENTRY + 1);
        for said in
            ["", "unknown", "192.0.2.1, ", "192.0.2", "fe80::1%eth0", "\u{e9}", &endless, &long]
        {
            let proxies = proxies(ForwardedHeader::XForwardedFor);
            let it = client(&proxies, "10.0.0.1", &[(&X_FORWARDED_FOR, said)]);
            assert_eq!((it.address, it.doubtful), (is("10.0.0.1"), true), "{said}");
        }
        for said in [
            "",
            "for",
            "for=unknown",
            "for=_hidden",
            "proto=https",
            "for=\"192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=\"192.0.2.66, for=unknown",
        ] {
            let proxies = proxies(ForwardedHeader::Forwarded);
            let it = client(&proxies, "10.0.0.1", &[(&header::FORWARDED, said)]);
            assert_eq!((it.address, it.doubtful), (is("10.0.0.1"), true), "{said}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_has_it() {
        let proxies = proxies(ForwardedHeader::Forwarded);
        for (said, address, secure) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60", Some(false)),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17", None),
            ("for=192.0.2.66;proto=http, for=192.0.2.43; proto=HTTPS", "192.0.2.43", Some(true)),
            ("for=192.0.2.43;proto=https, for=10.0.0.9;proto=http", "192.0.2.43", Some(true)),
            // A quote that a client opens does not swallow what the proxy says.
            ("for=\"192.0.2.66, for=192.0.2.43", "192.0.2.43", None),
        ] {
            let it = client(&proxies, "10.0.0.1", &[(&header::FORWARDED, said)]);
            assert_eq!((it.address, it.secure), (is(address), secure), "{said}");
        }
        // The other header is a client's own.
        let other = [(&X_FORWARDED_FOR, "192.0.2.1"), (&X_FORWARDED_PROTO, "https")];
        let it = client(&proxies, "10.0.0.1", &other);
        assert_eq!((it.address, it.secure), (is("10.0.0.1"), None));
    }

    #[test]
    fn the_scheme_is_that_of_the_last_proxy() {
        let proxies = proxies(ForwardedHeader::XForwardedFor);
        for (said, secure) in
            [("https", Some(true)), ("https, http", Some(false)), ("wss", Some(false))]
        {
            let headers = [(&X_FORWARDED_FOR, "192.0.2.1"), (&X_FORWARDED_PROTO, said)];
            assert_eq!(client(&proxies, "10.0.0.1", &headers).secure, secure, "{said}");
        }
    }

    #[test]
    fn local_is_who_is_here_without_a_proxy() {
        for proxies in [Proxies::default(), proxies(ForwardedHeader::Forwarded)] {
            for peer in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
                assert!(client(&proxies, peer, &[]).local, "{peer}");
                for name in &TRACES {
                    assert!(!client(&proxies, peer, &[(name, "x")]).local, "{peer} {name}");
                }
            }
            assert!(!client(&proxies, "10.0.0.1", &[]).local);
        }
    }
}
