//! What every answer says to browsers: what a page may not do, and who may not have it.
//!
//! Most answers are no pages; they say the strictest. Pages bring a policy of their own.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The policy of what is no page.
const NOTHING: &str = "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A browser that has seen this asks over TLS for two years, whatever a link says.
const TRANSPORT: &str = "max-age=63072000; includeSubDomains";
/// What browsers may be asked for; a page of ours needs none of it.
const PERMISSIONS: &str = "accelerometer=(), autoplay=(), browsing-topics=(), camera=(), \
    cross-origin-isolated=(), display-capture=(), encrypted-media=(), fullscreen=(), gamepad=(), \
    geolocation=(), gyroscope=(), hid=(), identity-credentials-get=(), idle-detection=(), \
    keyboard-map=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), otp-credentials=(), \
    payment=(), picture-in-picture=(), publickey-credentials-create=(), \
    publickey-credentials-get=(), screen-wake-lock=(), serial=(), storage-access=(), sync-xhr=(), \
    usb=(), web-share=(), window-management=(), xr-spatial-tracking=()";
/// What is no page runs nothing that could ask, so its answer is not made longer than it is.
const FEW_PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=()";

/// On every answer, whatever it says itself.
const FIXED: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What is about people, and who they are: nobody keeps it, not even with a tag.
const PERSONAL: [&str; 6] = ["users", "keys", "roles", "account", "auth", "audit"];

/// Whether answers of a route are kept by nobody.
pub(super) fn is_personal(route: &str) -> bool {
    let below = route.split_once("/api/v1/").map_or("", |it| it.1);
    PERSONAL.contains(&below.split('/').next().unwrap_or_default())
}

/// Adds them. `secure`: the answer goes out over TLS; `shared`: a page of another site may read it.
pub(super) fn protect(headers: &mut HeaderMap, secure: bool, shared: bool) {
    headers.reserve(10);
    for (name, value) in &FIXED {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_page = kind.is_some_and(|it| it.starts_with(b"text/html"));
    let permissions = if is_page { PERMISSIONS } else { FEW_PERMISSIONS };
    headers.insert(PERMISSIONS_POLICY, HeaderValue::from_static(permissions));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NOTHING));
    if !shared {
        headers.entry(RESOURCE_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    }
    if secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(TRANSPORT));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        // Whoever kept what has a tag asks whether it is still so; the rest is kept by nobody.
        let tagged = headers.contains_key(header::ETAG);
        let rule = if tagged { "private, no-cache" } else { "no-store" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(rule));
    }
}

/// The same as lines of a head, for answers that are written by hand.
pub(super) fn lines(secure: bool) -> String {
    let mut headers = HeaderMap::new();
    protect(&mut headers, secure, false);
    let lines = headers.iter().map(|(name, value)| {
        let value = value.to_str().unwrap_or_default();
        format!("{name}: {value}\r\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected(own: &[(HeaderName, &'static str)], secure: bool, shared: bool) -> HeaderMap {
        let own = own.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut headers = own.collect();
        protect(&mut headers, secure, shared);
        headers
    }

    #[test]
    fn an_answer_says_what_it_says_itself_and_the_strictest_otherwise() {
        let plain = protected(&[], false, false);
        assert_eq!(plain["content-security-policy"], NOTHING);
        assert_eq!(plain["cross-origin-resource-policy"], "same-origin");
        assert_eq!(plain["cache-control"], "no-store");
        assert!(!plain.contains_key("strict-transport-security"));
        let page = [(header::CONTENT_SECURITY_POLICY, "default-src 'self'")];
        assert_eq!(protected(&page, false, false)["content-security-policy"], page[0].1);
        let tagged = protected(&[(header::ETAG, "\"a\"")], true, true);
        assert_eq!(tagged["cache-control"], "private, no-cache");
        assert!(tagged.contains_key("strict-transport-security"));
        assert!(!tagged.contains_key("cross-origin-resource-policy"));
        let events = [(header::CACHE_CONTROL, "no-cache")];
        assert_eq!(protected(&events, false, false)["cache-control"], "no-cache");
    }

    #[test]
    fn what_is_about_people_is_told_from_the_rest() {
        for personal in ["/api/v1/users", "/services/a/api/v1/users/{id}", "/api/v1/auth/session"] {
            assert!(is_personal(personal), "{personal}");
        }
        for other in ["/api/v1/configs", "/users", "/api/v1/usersx", "unmatched", "/api/v1/"] {
            assert!(!is_personal(other), "{other}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_a_page_does_not_need() {
        assert!(!NOTHING.contains("unsafe") && NOTHING.contains("frame-ancestors 'none'"));
        for permission in PERMISSIONS.split(", ") {
            assert!(permission.ends_with("=()"), "{permission}");
        }
        let html = protected(&[(header::CONTENT_TYPE, "text/html; charset=utf-8")], false, false);
        assert_eq!(html["permissions-policy"], PERMISSIONS);
        assert!(lines(true).contains("\r\nx-frame-options: DENY\r\n"));
    }
}
