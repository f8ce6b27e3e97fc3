//! Which pages and names a request may come by.
//!
//! A browser sends what any page asks for to any address, also to one that only its own machine
//! reaches. Keys keep such requests out, since a page does not know them; a service without keys looks
//! at where a request comes from. Programs that are no browsers do not notice.

use axum::body::Body;
use http::uri::Authority;
use http::{HeaderMap, Method, Request, header};
use modelyard_kernel::form::shorten;
use modelyard_kernel::{Failure, Kind, Result};
use std::net::IpAddr;
use url::{Origin, Url};

use super::Cors;

/// What a browser says of where a request comes from; no page can set it.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The names that a service is asked by, and the pages that may change something.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// Beside `localhost` and addresses; `None` where it may be called anything.
    names: Option<Vec<String>>,
    /// Where its own pages are, seen through a proxy.
    public: Option<Origin>,
    /// Pages of others that may change something all the same.
    cors: Cors,
}

impl Sites {
    /// Of a service that clients reach at `public_url`, when that is not what they say in `Host`.
    pub fn new(public_url: Option<&str>) -> Self {
        let public = public_url.and_then(|it| Url::parse(it).ok()).map(|it| it.origin());
        Self { names: None, public, cors: Cors::default() }
    }

    /// Lets pages of these sites in, too.
    #[must_use]
    pub fn open_to(self, cors: Cors) -> Self {
        Self { cors, ..self }
    }

    /// Where nobody needs a key: only whoever calls the service `localhost`, by an address, or by one
    /// of `names` or the name of its public address is answered. A name of somebody else's that leads
    /// here is how a page in a browser on this machine reaches what is open to this machine only.
    #[must_use]
    pub fn known_as(mut self, names: impl IntoIterator<Item = String>) -> Self {
        let public = self.public.as_ref().and_then(|it| match it {
            Origin::Tuple(_, host, _) => Some(host.to_string()),
            Origin::Opaque(_) => None,
        });
        self.names = Some(names.into_iter().chain(public).map(|it| plain(&it)).collect());
        self
    }

    /// Whether a request may be answered. `open`: nobody needs a key.
    pub(super) fn admit(&self, request: &Request<Body>, open: bool) -> Result<()> {
        let headers = request.headers();
        if let Some(names) = self.names.as_ref().filter(|_| open) {
            check_host(headers, names)?;
        }
        let harmless = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        if harmless || self.is_own(headers) || self.cors.admits(headers, open) {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Denied,
            "origin_foreign",
            "a page of another site may not change anything here; if it is this service's own, seen through a proxy, name its address in the setting `server.public_url`, and another that you trust in `server.cors_origins`",
        ))
    }

    /// Whether a request comes from a page of the service's own, or from no page.
    fn is_own(&self, headers: &HeaderMap) -> bool {
        match headers.get(SEC_FETCH_SITE).map(|it| it.as_bytes()) {
            Some(b"same-origin" | b"none") => return true,
            Some(b"cross-site") => return false,
            _ => {}
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        // `null` is what pages say that are nobody's.
        let Some(origin) = origin.to_str().ok().and_then(|it| Url::parse(it).ok()) else {
            return false;
        };
        if self.public.as_ref() == Some(&origin.origin()) {
            return true;
        }
        let Some(host) = authority(headers) else { return false };
        let usual = if origin.scheme() == "https" { 443 } else { 80 };
        let same_port = host.port_u16().unwrap_or(usual) == origin.port().unwrap_or(usual);
        same_port && origin.host_str().is_some_and(|it| it.eq_ignore_ascii_case(host.host()))
    }
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

/// Checks what a request calls the service. Browsers always say.
fn check_host(headers: &HeaderMap, names: &[String]) -> Result<()> {
    let Some(said) = headers.get(header::HOST) else { return Ok(()) };
    let host = authority(headers).map(|it| plain(it.host()));
    let known = |it: &String| {
        it == "localhost"
            || it.ends_with(".localhost")
            || it.parse::<IpAddr>().is_ok()
            || names.contains(it)
    };
    if host.as_ref().is_some_and(known) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(said.as_bytes());
    let said = shorten(&said);
    Err(Failure::new(
        Kind::Denied,
        "host_unknown",
        format!(
            "this service needs no key, so it answers its own machine only, and not as `{said}`; ask it at `localhost`, or set `server.public_url` to where clients reach it, or `auth.api_keys`"
        ),
    ))
}

/// A name as it is compared.
fn plain(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code that a request is refused with, if it is.
    fn refused(sites: &Sites, open: bool, method: Method, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method).uri("/api/v1/configs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let admitted = sites.admit(&request.body(Body::empty()).unwrap(), open);
        admitted.err().map_or(String::new(), |it| {
            assert_eq!(it.status().as_u16(), 403);
            it.code().to_owned()
        })
    }

    #[test]
    fn an_open_service_answers_to_names_of_its_own_only() {
        let sites = Sites::new(Some("https://models.example.org/x"))
            .known_as(["My-Machine".to_owned(), "127.0.0.1".to_owned()]);
        let ask = |open, host| refused(&sites, open, Method::GET, &[("host", host)]);
        for own in [
            "localhost",
            "localhost:9090",
            "LOCALHOST.:9090",
            "a.localhost",
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.0.0.7",
            "my-machine:9090",
            "models.example.org",
        ] {
            assert_eq!(ask(true, own), "", "{own}");
        }
        let strange = [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "a b",
        ];
        for strange in strange {
            assert_eq!(ask(true, strange), "host_unknown", "{strange}");
            // Nobody gets anywhere without a key.
            assert_eq!(ask(false, strange), "", "{strange}");
            let anywhere = refused(&Sites::new(None), true, Method::GET, &[("host", strange)]);
            assert_eq!(anywhere, "", "{strange}");
        }
        assert_eq!(refused(&sites, true, Method::GET, &[]), "");
    }

    #[test]
    fn pages_of_others_change_nothing() {
        let sites = Sites::new(Some("https://models.example.org/x"));
        let host = ("host", "localhost:9090");
        for (more, own) in [
            (vec![], true),
            (vec![("origin", "http://localhost:9090")], true),
            (vec![("origin", "http://localhost:9090"), ("sec-fetch-site", "same-origin")], true),
            // Seen through a proxy that says its own name in `Host`.
            (vec![("origin", "https://models.example.org")], true),
            (vec![("origin", "https://a.example"), ("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "none")], true),
            (vec![("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")], false),
            (vec![("origin", "http://localhost")], false),
            (vec![("origin", "http://evil.example")], false),
            (vec![("origin", "null")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("origin", "http://localhost:9090"), ("sec-fetch-site", "cross-site")], false),
        ] {
            let headers: Vec<_> = [host].into_iter().chain(more).collect();
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                for open in [true, false] {
                    let code = refused(&sites, open, method.clone(), &headers);
                    assert_eq!(code, if own { "" } else { "origin_foreign" }, "{headers:?}");
                }
            }
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert_eq!(refused(&sites, true, method, &headers), "", "{headers:?}");
            }
        }
        // A proxy leaves out the usual port.
        for (host, origin) in [
            ("a.example", "https://a.example"),
            ("a.example:80", "http://a.example"),
            ("[::1]:1", "http://[::1]:1"),
        ] {
            let headers = [("host", host), ("origin", origin)];
            assert_eq!(refused(&Sites::default(), true, Method::POST, &headers), "", "{host}");
        }
    }

    #[test]
    fn pages_that_are_listed_change_what_they_may() {
        let listed = "https://console.example.org";
        let sites = |origins: &[&str]| {
            let origins: Vec<String> = origins.iter().map(|it| (*it).to_owned()).collect();
            Sites::default().open_to(Cors::new(&origins, true))
        };
        for (origins, origin, open, cookie, admitted) in [
            (&[listed][..], listed, true, true, true),
            (&[listed], "https://other.example", false, false, false),
            // Any page, with what it has itself: a key, and no cookie of whoever looks at it.
            (&["*"], "https://other.example", false, false, true),
            (&["*"], "https://other.example", false, true, false),
            (&["*"], "https://other.example", true, false, false),
            (&["*", listed], listed, true, false, true),
        ] {
            let mut headers =
                vec![("host", "a"), ("origin", origin), ("sec-fetch-site", "cross-site")];
            headers.extend(cookie.then_some(("cookie", "session=1")));
            let code = refused(&sites(origins), open, Method::POST, &headers);
            assert_eq!(code.is_empty(), admitted, "{origins:?} {headers:?} {open}");
        }
    }
}
