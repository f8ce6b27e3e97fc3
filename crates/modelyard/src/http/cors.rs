//! Pages of other sites that may read answers, and change something: those that the operator lists.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};

/// What such a page may ask.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// What such a page may see beside what browsers always show.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, location, retry-after, x-request-id, content-disposition, content-range, accept-ranges, \
     www-authenticate, ratelimit, ratelimit-policy, x-ratelimit-limit, x-ratelimit-remaining, \
     x-ratelimit-reset",
);
/// How long a browser remembers what may be asked, in seconds.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");
/// What decides about the answer to a preflight.
const ASKED: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);
/// No list of headers that a page wants to send is longer.
const LONGEST: usize = 2048;

/// The list.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
    /// Any page at all, with a key of its own.
    any: bool,
    /// Whether browsers send their cookies along.
    credentials: bool,
}

/// What an answer may say to the page that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// It is no page, or one of the service's own, or nothing is for others.
    None,
    /// It is not on the list.
    Foreign,
    /// Any page may read it.
    Any,
    /// This one is on the list.
    Listed(HeaderValue),
}

impl Cors {
    /// With these origins, as browsers write them, or `*` for all.
    pub fn new(origins: &[String], credentials: bool) -> Self {
        let mut it = Self { credentials, ..Self::default() };
        for origin in origins {
            match HeaderValue::from_str(origin) {
                Ok(_) if origin == "*" => it.any = true,
                Ok(origin) => it.origins.push(origin),
                Err(_) => {}
            }
        }
        // A cookie of whoever looks at any page would come along.
        it.credentials &= !it.any;
        it
    }

    fn is_closed(&self) -> bool {
        self.origins.is_empty() && !self.any
    }

    /// Who asks.
    pub(super) fn page(&self, headers: &HeaderMap) -> Page {
        if self.is_closed() {
            return Page::None;
        }
        match headers.get(header::ORIGIN) {
            Some(origin) if self.origins.contains(origin) => Page::Listed(origin.clone()),
            _ if self.any => Page::Any,
            _ => Page::Foreign,
        }
    }

    /// Whether a page may change something; browsers let it hear of that.
    pub(super) fn admits(&self, headers: &HeaderMap, open: bool) -> bool {
        match self.page(headers) {
            Page::Listed(_) => true,
            // With nothing but what the page itself brings.
            Page::Any => !open && !headers.contains_key(header::COOKIE),
            Page::None | Page::Foreign => false,
        }
    }

    /// Says to a browser whether the page may read the answer.
    pub(super) fn tell(&self, page: &Page, headers: &mut HeaderMap) {
        match page {
            Page::None => return,
            Page::Foreign => {}
            Page::Any => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Page::Listed(origin) => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                if self.credentials {
                    let yes = HeaderValue::from_static("true");
                    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
                }
            }
        }
        let preflight = headers.contains_key(header::ACCESS_CONTROL_ALLOW_METHODS);
        if !preflight {
            if *page != Page::Foreign {
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}

/// The answer to a browser that asks what a page may do, if it may do anything.
pub(super) fn preflight(request: &Request<Body>, page: &Page) -> Option<Response> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS
        || !matches!(page, Page::Any | Page::Listed(_))
        || !headers.contains_key(header::ORIGIN)
        || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let set = response.headers_mut();
    set.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    set.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    set.insert(header::VARY, ASKED);
    // Whatever it wants to send: each is looked at as if a program had sent it.
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(wanted) = wanted.filter(|it| it.len() <= LONGEST && is_a_list(it)) {
        set.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(response)
}

/// Names of headers, with commas.
fn is_a_list(value: &HeaderValue) -> bool {
    let names = value.to_str().into_iter().flat_map(|it| it.split(','));
    let names: Vec<&str> = names.map(str::trim).filter(|it| !it.is_empty()).collect();
    !names.is_empty() && names.iter().all(|it| HeaderName::from_bytes(it.as_bytes()).is_ok())
}
