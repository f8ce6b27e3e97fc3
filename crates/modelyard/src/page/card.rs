//! The page at `/`: what a service is, who stands behind it, and where to go from here.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::routing::get;
use http::Uri;
use serde_json::Value;

use super::html::Escaped;
use super::http::page;
use super::mailed_link::{Form, INVITATION, RESET};

/// The style of all pages of ours.
pub(super) const CSS: &str = include_str!("page.css");

/// Where a service's page leads, relative to it.
const LINKS: [(&str, &str); 8] = [
    ("docs", "API reference"),
    ("api/v1/info", "Info"),
    ("health", "Health"),
    ("api/v1/configs", "Configs"),
    ("api/v1/artifacts", "Artifacts"),
    ("api/v1/jobs", "Jobs"),
    ("api/v1/tasks", "Tasks"),
    ("openapi.json", "OpenAPI document"),
];

/// Where a fact leads.
enum Leads {
    Nowhere,
    ToItself,
    ToMail,
}

/// What is shown of a service: under which label, and where in its info it is.
const FACTS: [(&str, &str, Leads); 13] = [
    ("Service id", "/id", Leads::Nowhere),
    ("Author", "/model_metadata/author", Leads::Nowhere),
    ("Organization", "/model_metadata/organization", Leads::Nowhere),
    ("Note", "/model_metadata/author_note", Leads::Nowhere),
    ("Assessed status", "/model_metadata/author_assessed_status", Leads::Nowhere),
    ("Contact", "/model_metadata/contact_email", Leads::ToMail),
    ("Periods", "/period_type", Leads::Nowhere),
    ("Shortest forecast, in periods", "/min_prediction_periods", Leads::Nowhere),
    ("Longest forecast, in periods", "/max_prediction_periods", Leads::Nowhere),
    ("Required covariates", "/required_covariates", Leads::Nowhere),
    ("Citation", "/model_metadata/citation_info", Leads::Nowhere),
    ("Repository", "/model_metadata/repository_url", Leads::ToItself),
    ("Documentation", "/model_metadata/documentation_url", Leads::ToItself),
];

/// What the page says about a service.
#[derive(Debug)]
pub(super) struct Card {
    /// Its name for people.
    pub(super) title: String,
    version: String,
    description: Option<String>,
    facts: Vec<Fact>,
    links: Vec<(&'static str, &'static str)>,
}

/// One thing to know about a service.
#[derive(Debug)]
struct Fact {
    label: &'static str,
    text: String,
    href: Option<String>,
}

impl Card {
    /// What the body of `/api/v1/info` says. Keys that it does not have are not shown, and there is
    /// no link to a path that the service does not have.
    pub(super) fn of(info: &Value, has: impl Fn(&str) -> bool) -> Self {
        let text = |pointer: &str| {
            let value = info.pointer(pointer).filter(|it| !it.is_null())?;
            Some(value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
        };
        let facts = FACTS.iter().filter_map(|(label, pointer, leads)| {
            let text = match info.pointer(pointer)? {
                Value::Array(names) => {
                    names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
                }
                _ => text(pointer)?,
            };
            let href = match leads {
                Leads::Nowhere => None,
                Leads::ToItself => Some(text.clone()),
                Leads::ToMail => Some(format!("mailto:{text}")),
            };
            (!text.is_empty()).then_some(Fact { label, text, href })
        });
        Self {
            title: text("/display_name").unwrap_or_default(),
            version: text("/version").unwrap_or_default(),
            description: text("/description"),
            facts: facts.collect(),
            links: LINKS.into_iter().filter(|it| has(&format!("/{}", it.0))).collect(),
        }
    }
}

impl Card {
    /// The page's content.
    pub(super) fn body(&self) -> String {
        let mut body = String::new();
        self.write(&mut body).unwrap_or_default();
        body
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { title, version, description, facts, links } = self;
        write!(
            out,
            "<h1>{}</h1><p class=version>Version {}</p>",
            Escaped(title),
            Escaped(version)
        )?;
        if let Some(description) = description {
            write!(out, "<p>{}</p>", Escaped(description))?;
        }
        out.push_str("<dl>");
        for Fact { label, text, href } in facts {
            write!(out, "<dt>{}</dt>", Escaped(label))?;
            match href.as_deref().filter(|it| is_harmless(it)) {
                Some(href) => {
                    let rel = "noopener noreferrer";
                    let (href, text) = (Escaped(href), Escaped(text));
                    write!(out, "<dd><a href=\"{href}\" rel=\"{rel}\">{text}</a></dd>")?;
                }
                None => write!(out, "<dd>{}</dd>", Escaped(text))?,
            }
        }
        out.push_str("</dl><nav>");
        for (href, text) in links {
            write!(out, "<a href=\"{href}\">{text}</a>")?;
        }
        out.push_str("</nav>");
        Ok(())
    }
}

/// Not a script, whoever wrote the card.
fn is_harmless(href: &str) -> bool {
    ["https://", "http://", "mailto:"].iter().any(|it| href.starts_with(it))
}

/// A page at `/` that leads to each of several services, given by id and name.
pub fn front(services: &[(&str, &str)]) -> Router {
    let mut body = "<h1>Modelyard</h1><p>The services of this process.</p><nav>".to_owned();
    for (id, name) in services {
        let (id, name) = (Escaped(id), Escaped(name));
        // Writing to a string cannot fail.
        let _ok = write!(body, "<a href=\"services/{id}\">{name}</a>");
    }
    body.push_str("</nav>");
    let show = move |OriginalUri(uri): OriginalUri| async move { page("Modelyard", &body, &uri) };
    let front = Router::new().route("/", get(show));
    let Some((first, _)) = services.first() else { return front };
    // Who may come in is the business of all of them, so any of them answers.
    let base: Arc<str> = format!("services/{first}/").into();
    let at = |form: Form| {
        let base = Arc::clone(&base);
        get(move || async move { form.page(&base) })
    };
    front.route("/reset-password", at(RESET)).route("/accept-invitation", at(INVITATION))
}

/// What relative addresses on a page are relative to: a page at `/services/a` is read as if it
/// were at `/services/a/`.
pub(super) fn base(uri: &Uri) -> String {
    match uri.path().rsplit('/').next().unwrap_or_default() {
        "" => "./".to_owned(),
        last => format!("{last}/"),
    }
}
