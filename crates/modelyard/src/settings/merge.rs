//! Flat settings, `section.key` to value, laid over each other; each remembers where it came from.

use std::collections::BTreeMap;

use modelyard_ml::project::manifest::{MODEL, locate};
use modelyard_ml::project::suggest::hint;
use toml::Value;

use super::load::SettingsError;

/// Keys whose values are never shown.
const SECRETS: [&str; 6] = [
    "auth.api_keys",
    "registration.key",
    "blobs.options",
    "access.secret",
    "mail.user",
    "mail.password",
];
/// Options of a provider.
const OPTIONS: &str = "blobs.options.";
/// Tables whose keys are not ours: those of a provider, and endpoints.
const FREE: [&str; 2] = [OPTIONS, "rate_limits.endpoints."];

/// A setting as it is shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `section.key`.
    pub key: String,
    /// Its value as TOML, or a mask.
    pub value: String,
    /// The file, variable or option that it comes from.
    pub origin: String,
}

/// Every setting by its dotted key.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    values: BTreeMap<String, (Value, String)>,
}

impl Layers {
    /// The defaults, which also say which keys there are and of which type.
    pub(super) fn defaults(text: &str) -> Result<Self, SettingsError> {
        let table: toml::Table =
            text.parse().map_err(|it| SettingsError::syntax("defaults", text, &it))?;
        let mut values = BTreeMap::new();
        flatten("", &table, &mut |key, value| {
            values.insert(key, (value, "default".to_owned()));
        });
        Ok(Self { values })
    }

    /// Lays a settings file over it; tables that are not settings are the manifest's. Answers all
    /// that is wrong in it.
    pub(super) fn file(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<Vec<SettingsError>, SettingsError> {
        let table: toml::Table =
            text.parse().map_err(|it| SettingsError::syntax(name, text, &it))?;
        let sections = self.sections();
        let mut problems = Vec::new();
        let mut found = Vec::new();
        for (section, value) in &table {
            if MODEL.contains(&section.as_str()) {
                continue;
            }
            if !sections.contains(section) {
                let valid: Vec<&str> =
                    sections.iter().map(String::as_str).chain(MODEL.iter().copied()).collect();
                let unknown = SettingsError::Unknown {
                    key: section.clone(),
                    origin: origin(name, text, section),
                    hint: hint(section, &valid),
                };
                problems.push(unknown);
                continue;
            }
            let Value::Table(keys) = value else {
                problems.push(self.unknown(section, &origin(name, text, section)));
                continue;
            };
            flatten(&format!("{section}."), keys, &mut |key, value| found.push((key, value)));
        }
        for (key, value) in found {
            let origin = origin(name, text, &key);
            problems.extend(self.set(&key, value, origin).err());
        }
        Ok(problems)
    }

    /// Lays one setting over it, given as text.
    pub(super) fn text(
        &mut self,
        key: &str,
        text: &str,
        origin: &str,
    ) -> Result<(), SettingsError> {
        let wrong = |expected: &str| SettingsError::Wrong {
            key: key.to_owned(),
            origin: origin.to_owned(),
            expected: expected.to_owned(),
        };
        let value = match self.values.get(key).map(|it| &it.0) {
            Some(Value::Integer(_)) => {
                Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?)
            }
            Some(Value::Boolean(_)) => {
                Value::Boolean(text.trim().parse().map_err(|_| wrong("`true` or `false`"))?)
            }
            Some(Value::Array(_)) => {
                let parts = text.split(',').map(str::trim).filter(|it| !it.is_empty());
                Value::Array(parts.map(Value::from).collect())
            }
            _ => Value::from(text),
        };
        self.set(key, value, origin.to_owned())
    }

    fn set(&mut self, key: &str, value: Value, origin: String) -> Result<(), SettingsError> {
        if !FREE.iter().any(|it| key.starts_with(it)) {
            let Some((known, _)) = self.values.get(key) else {
                return Err(self.unknown(key, &origin));
            };
            if known.type_str() != value.type_str() {
                let expected = format!("{}, not {}", article(known), article(&value));
                return Err(SettingsError::Wrong { key: key.to_owned(), origin, expected });
            }
        }
        self.values.insert(key.to_owned(), (value, origin));
        Ok(())
    }

    /// Brings a text into one form, wherever it comes from.
    pub(super) fn rewrite(
        &mut self,
        key: &str,
        change: impl Fn(&str) -> Option<String>,
        expected: &str,
    ) -> Result<(), SettingsError> {
        let Some((Value::String(text), origin)) = self.values.get_mut(key) else { return Ok(()) };
        *text = change(text).ok_or_else(|| SettingsError::Wrong {
            key: key.to_owned(),
            origin: origin.clone(),
            expected: expected.to_owned(),
        })?;
        Ok(())
    }

    fn unknown(&self, key: &str, origin: &str) -> SettingsError {
        let keys: Vec<&str> = self.values.keys().map(String::as_str).collect();
        SettingsError::Unknown {
            key: key.to_owned(),
            origin: origin.to_owned(),
            hint: hint(key, &keys),
        }
    }

    fn sections(&self) -> Vec<String> {
        let first = |key: &String| key.split('.').next().unwrap_or_default().to_owned();
        let mut sections: Vec<String> = self.values.keys().map(first).collect();
        sections.dedup();
        sections
    }

    /// A value and where it comes from.
    pub(super) fn get(&self, key: &str) -> Option<(&Value, &str)> {
        self.values.get(key).map(|it| (&it.0, it.1.as_str()))
    }

    /// The keys and values of the provider's own table.
    pub(super) fn free(&self) -> Vec<(String, String)> {
        let found = self.values.iter().filter_map(|(key, (value, _))| {
            let key = key.strip_prefix(OPTIONS)?;
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some((key.to_owned(), text))
        });
        found.collect()
    }

    /// What is below a table, with whole keys.
    pub(super) fn below(&self, table: &str) -> impl Iterator<Item = (&str, &Value)> {
        let below = self.values.iter().filter(move |it| it.0.starts_with(table));
        below.map(|(key, (value, _))| (key.as_str(), value))
    }

    /// Everything, for people.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let shown = |(key, (value, origin)): (&String, &(Value, String))| {
            let secret = SECRETS.iter().any(|it| key.starts_with(it));
            let empty = matches!(value, Value::Array(it) if it.is_empty())
                || value.as_str().is_some_and(str::is_empty);
            let value = match value {
                _ if secret && !empty => "\"********\"".to_owned(),
                Value::String(it) => Value::from(masked(it)).to_string(),
                value => value.to_string(),
            };
            Shown { key: key.clone(), value, origin: origin.clone() }
        };
        self.values.iter().map(shown).collect()
    }
}

/// A text without the password that it has when it is an address.
fn masked(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else { return text.to_owned() };
    let in_query = url.query_pairs().any(|it| it.0 == "password");
    if url.password().is_none() && !in_query {
        return text.to_owned();
    }
    let _kept_when_there_is_none = url.set_password(url.password().map(|_| "********"));
    if in_query {
        url.set_query(Some("********"));
    }
    url.to_string()
}

fn origin(name: &str, text: &str, key: &str) -> String {
    match locate(text, key) {
        Some(line) => format!("{name}:{line}"),
        None => name.to_owned(),
    }
}

fn flatten(prefix: &str, table: &toml::Table, take: &mut impl FnMut(String, Value)) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => flatten(&format!("{prefix}{key}."), inner, take),
            value => take(format!("{prefix}{key}"), value.clone()),
        }
    }
}

fn article(value: &Value) -> String {
    match value {
        Value::String(_) => "a text".to_owned(),
        Value::Integer(_) => "a whole number".to_owned(),
        Value::Boolean(_) => "`true` or `false`".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}
