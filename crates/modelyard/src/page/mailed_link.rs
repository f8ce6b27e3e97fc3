//! The pages that links of mails lead to: where somebody sets a password.
//!
//! Their script and style are files of ours, so that a page may run nothing else.

use std::fmt::Write as _;

use axum::response::{Html, IntoResponse, Response};

use super::html::Escaped;
use super::http::with_policy;

/// The page's script, and its style.
pub(super) const SCRIPT: &str = include_str!("mailed_link.js");
pub(super) const STYLE: &str = include_str!("mailed_link.css");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

/// A page with a form for what was mailed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    title: &'static str,
    /// Where it is sent to, relative to the service.
    path: &'static str,
    asks_name: bool,
    button: &'static str,
    done: &'static str,
}

/// For those who have forgotten a password.
pub(super) const RESET: Form = Form {
    title: "Set a new password",
    path: "api/v1/auth/$reset-password",
    asks_name: false,
    button: "Set password",
    done: "The password is set. You are logged out everywhere; log in with the new one.",
};

/// For those who come in for the first time.
pub(super) const INVITATION: Form = Form {
    title: "Accept the invitation",
    path: "api/v1/auth/$accept-invitation",
    asks_name: true,
    button: "Accept",
    done: "You may log in now, with your address and this password.",
};

impl Form {
    /// The page. `base` is where the service is, relative to it.
    pub(super) fn page(&self, base: &str) -> Response {
        let mut html = String::new();
        self.write(&mut html, base).unwrap_or_default();
        with_policy(Html(html).into_response(), POLICY)
    }

    fn write(&self, out: &mut String, base: &str) -> std::fmt::Result {
        let Self { title, path, asks_name, button, done } = self;
        write!(
            out,
            "<!doctype html><html lang=en><head><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width,initial-scale=1\">\
             <title>{title}</title><base href=\"{}\">\
             <link rel=stylesheet href=\"docs/mailed-link.css\">\
             <script src=\"docs/mailed-link.js\" defer></script></head><body><main>\
             <h1>{title}</h1><noscript><p>This page needs JavaScript. Without, <code>POST</code> the \
             token of the mail to <code>{path}</code>.</p></noscript>\
             <p id=said role=status tabindex=-1></p>\
             <form method=post hidden data-path=\"{path}\" data-done=\"{done}\">",
            Escaped(base)
        )?;
        if *asks_name {
            out.push_str(
                "<label for=name>Your name</label>\
                 <input id=name name=name autocomplete=name maxlength=200 required>",
            );
        }
        for (name, label) in [("password", "New password"), ("again", "The same again")] {
            write!(
                out,
                "<label for={name}>{label}</label><input id={name} name={name} type=password \
                 autocomplete=new-password maxlength=1024 required>"
            )?;
        }
        write!(out, "<button>{button}</button></form></main></body></html>")
    }
}
