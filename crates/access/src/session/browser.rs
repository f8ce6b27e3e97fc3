//! Cookies, and how to tell the pages of ours from those of others. No I/O in this file.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, header};
use modelyard_kernel::{Failure, Kind, Result, Ulid};

use super::model::{Options, is_csrf_token};
use super::{Client, Sessions};

/// The cookie over TLS: browsers take it from this host only.
pub const HOST_COOKIE: &str = "__Host-modelyard";
/// The cookie without TLS.
pub const PLAIN_COOKIE: &str = "modelyard";
/// The header that pages of ours send with everything that changes something.
pub const CSRF_HEADER: &str = "x-csrf-token";

const FETCH_SITE: &str = "sec-fetch-site";

/// The value of the cookie; `secure` is whether the request came over TLS. None when there are two.
pub fn cookie_of(headers: &HeaderMap, secure: bool) -> Option<&str> {
    let wanted = name(secure);
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    let pairs = lines.flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
    let mut found = pairs.filter(|it| it.0 == wanted).map(|it| it.1);
    let value = found.next()?;
    found.next().is_none().then_some(value)
}

fn name(secure: bool) -> &'static str {
    if secure { HOST_COOKIE } else { PLAIN_COOKIE }
}

/// A cookie for browsers to keep.
pub(super) fn set(value: &str, secure: bool, lasts: Duration) -> HeaderValue {
    let (name, seconds) = (name(secure), lasts.as_secs());
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut value = HeaderValue::try_from(text).expect("the text of a cookie is ASCII");
    value.set_sensitive(true);
    value
}

/// Takes the cookie from browsers.
pub(super) fn unset(secure: bool) -> HeaderValue {
    set("", secure, Duration::ZERO)
}

impl Sessions {
    /// Whether cookies are for TLS only.
    pub fn is_secure(&self, client: Client) -> bool {
        client.secure || self.0.options.tls_by_proxy
    }

    /// Whether a browser may have a cookie: only where nobody listens in between, which is over TLS or on this
    /// machine.
    ///
    /// # Errors
    /// `tls_required`.
    pub(super) fn allow_cookie(&self, client: Client) -> Result<()> {
        let is_here = client.address.is_none_or(|it| it.to_canonical().is_loopback());
        match is_here || self.is_secure(client) {
            true => Ok(()),
            false => Err(Failure::new(
                Kind::Denied,
                "tls_required",
                "a cookie is given over TLS only: set `server.tls_certificate`, or `server.public_url` to the \
                 `https://` address of your proxy, or log in without `cookie`",
            )),
        }
    }

    /// Whether a request that shows a cookie may change something: it comes from a page of ours.
    ///
    /// # Errors
    /// `csrf_refused`.
    pub fn allow_unsafe(
        &self,
        method: &Method,
        headers: &HeaderMap,
        cookie: &str,
        session: Ulid,
    ) -> Result<()> {
        if method.is_safe() {
            return Ok(());
        }
        allow_origin(headers, &self.0.options)?;
        let mut said = headers.get_all(CSRF_HEADER).iter();
        let token = said.next().and_then(|it| it.to_str().ok());
        let is_right = token.is_some_and(|it| is_csrf_token(cookie, session, it));
        if is_right && said.next().is_none() {
            return Ok(());
        }
        Err(forged("send the `csrf_token` of `GET /api/v1/auth/session` as `X-CSRF-Token`"))
    }
}

/// Whether a browser says that the request comes from a page of ours, or of somebody who is listed;
/// programs say nothing.
pub(super) fn allow_origin(headers: &HeaderMap, options: &Options) -> Result<()> {
    let elsewhere = || forged("it comes from a page of somebody else");
    let host = headers.get(header::HOST).and_then(|it| it.to_str().ok());
    let mut listed = headers.contains_key(header::ORIGIN);
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().map_err(|_| elsewhere())?;
        let is_host = |it: &str| host.is_some_and(|host| host.eq_ignore_ascii_case(it));
        let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        let configured = |it: &String| it.trim_end_matches('/').eq_ignore_ascii_case(origin);
        let is_listed = options.origins.iter().any(configured);
        if !authority.is_some_and(is_host) && !is_listed {
            return Err(elsewhere());
        }
        listed &= is_listed;
    }
    // To browsers, pages that are listed are on another site.
    let is_ours = |it: &HeaderValue| it == "same-origin" || it == "none";
    match listed || headers.get_all(FETCH_SITE).iter().all(is_ours) {
        true => Ok(()),
        false => Err(elsewhere()),
    }
}

fn forged(why: &'static str) -> Failure {
    let detail = format!("a request with a cookie may come from any page: {why}");
    Failure::new(Kind::Denied, "csrf_refused", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        for (lines, secure, expected) in [
            (&["modelyard=a"] as &[&str], false, Some("a")),
            (&["x=1; modelyard=a; y=2"], false, Some("a")),
            (&["x=1", "modelyard=a"], false, Some("a")),
            (&["modelyard=a; modelyard=b"], false, None),
            (&["modelyard=a"], true, None),
            (&["__Host-modelyard=a; modelyard=b"], true, Some("a")),
            (&["__Host-modelyard=a"], false, None),
            (&["xmodelyard=a"], false, None),
            (&[], false, None),
        ] {
            let lines: Vec<_> = lines.iter().map(|it| ("cookie", *it)).collect();
            assert_eq!(cookie_of(&headers(&lines), secure), expected, "{lines:?}");
        }
    }

    #[test]
    fn pages_of_others_are_told_from_ours() {
        let options = Options {
            origins: vec!["https://models.example.org".to_owned()],
            ..Options::default()
        };
        let cases: &[(&[(&'static str, &str)], bool)] = &[
            (&[], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "http://here:9090")], true),
            (&[("origin", "https://here:9090")], true),
            (&[("origin", "https://models.example.org")], true),
            (&[("origin", "https://models.example.org"), ("sec-fetch-site", "same-site")], true),
            (&[("origin", "http://here:9090"), ("sec-fetch-site", "cross-site")], false),
            (
                &[
                    ("origin", "https://models.example.org"),
                    ("origin", "http://here:9090"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (&[("origin", "https://models.example.org.evil.net")], false),
            (&[("origin", "https://evil.net")], false),
            (&[("origin", "http://here")], false),
            (&[("origin", "http://here:9091")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("origin", "http://here:9090"), ("origin", "https://evil.net")], false),
        ];
        for (lines, allowed) in cases {
            let mut all = headers(lines);
            all.insert("host", HeaderValue::from_static("here:9090"));
            assert_eq!(allow_origin(&all, &options).is_ok(), *allowed, "{lines:?}");
        }
    }

    #[test]
    fn cookies_over_tls_are_for_this_host_only() {
        assert_eq!(
            set("a", true, Duration::from_secs(9)),
            "__Host-modelyard=a; Path=/; Max-Age=9; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(unset(false), "modelyard=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    }
}
