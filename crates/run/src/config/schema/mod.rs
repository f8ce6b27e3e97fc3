//! What a service's configs may hold: the fields with their types, defaults and bounds.
//!
//! A schema comes from a Rust type ([`ConfigSchema::of`]) or from a project's files
//! ([`ConfigSchema::new`] and [`Field`]). It is shown to clients as JSON Schema
//! ([`ConfigSchema::json_schema`]), and what they send is read by it ([`ConfigSchema::read`]).

mod from_rust;
mod read;
mod render;

use std::fmt;

use modelyard_kernel::form::Bounds;
use serde_json::{Map, Value, json};

/// The horizon of a prediction, in periods: reserved, every config has it.
pub const PREDICTION_PERIODS: &str = "prediction_periods";

/// Names of further columns that the model shall use: reserved, every config has it.
pub const ADDITIONAL_COVARIATES: &str = "additional_continuous_covariates";

/// The horizon of a config that names none.
pub const DEFAULT_PREDICTION_PERIODS: u32 = 3;

/// The fields of a service's configs. Keys that are no field are kept as they come.
#[derive(Clone)]
pub struct ConfigSchema {
    /// The name of the config's type.
    pub title: String,
    /// What the config is for.
    pub description: Option<String>,
    /// The fields in the order in which configs show them; the two reserved ones come first.
    pub fields: Vec<Field>,
    /// JSON Schemas that fields refer to as `#/$defs/…`.
    pub definitions: Map<String, Value>,
    /// The last word of the Rust type that the schema was made of.
    check: Option<Check>,
}

/// Says why data that keeps the fields' rules is still no config, if so.
type Check = fn(&Map<String, Value>) -> Result<(), String>;

impl fmt::Debug for ConfigSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigSchema { title, description, fields, definitions, check: _ } = self;
        f.debug_struct("ConfigSchema")
            .field("title", title)
            .field("description", description)
            .field("fields", fields)
            .field("definitions", definitions)
            .finish_non_exhaustive()
    }
}

impl ConfigSchema {
    /// A schema with the two reserved fields: `prediction_periods` (3 by default) and
    /// `additional_continuous_covariates` (none by default).
    pub fn new(title: impl Into<String>) -> Self {
        let covariates = FieldKind::List(Box::new(FieldKind::String));
        let fields = vec![
            Field::new(PREDICTION_PERIODS, FieldKind::Integer)
                .with_default(DEFAULT_PREDICTION_PERIODS),
            Field::new(ADDITIONAL_COVARIATES, covariates).with_default(json!([])),
        ];
        ConfigSchema {
            title: title.into(),
            description: None,
            fields,
            definitions: Map::new(),
            check: None,
        }
    }

    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Adds a field. One of the same name, such as a reserved one, is replaced in its place.
    #[must_use]
    pub fn with_field(mut self, field: Field) -> Self {
        match self.fields.iter_mut().find(|known| known.name == field.name) {
            Some(known) => *known = field,
            None => self.fields.push(field),
        }
        self
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The values of a config that says nothing. Fields without a default are not among them.
    pub fn defaults(&self) -> Map<String, Value> {
        let defaults = self
            .fields
            .iter()
            .filter_map(|field| field.default.clone().map(|default| (field.name.clone(), default)));
        defaults.collect()
    }
}

/// One field of a config.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The key in a config.
    pub name: String,
    pub kind: FieldKind,
    /// The value of a config that does not name the field. A field without one must be named,
    /// unless it is `optional`.
    pub default: Option<Value>,
    /// True when the default is made anew for each config, and so not shown in the schema.
    pub from_factory: bool,
    /// True when a config may leave the field out though there is no default.
    pub optional: bool,
    /// True when null is a value of the field.
    pub nullable: bool,
    /// The name for people.
    pub title: String,
    pub description: Option<String>,
    /// For integers and numbers.
    pub bounds: Bounds,
    /// For strings (in characters) and lists (in items).
    pub length: Length,
}

/// How long a text or a list may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Length {
    pub min: Option<u64>,
    pub max: Option<u64>,
}

/// The type of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldKind {
    Integer,
    /// A float.
    Number,
    String,
    Boolean,
    /// One of these values.
    Enum(Vec<Value>),
    List(Box<FieldKind>),
    /// Anything; clients are shown this JSON Schema, and what comes is kept as it is.
    Any(Value),
}

impl Field {
    /// A required field, titled after its name.
    pub fn new(name: impl Into<String>, kind: FieldKind) -> Self {
        let name = name.into();
        Field {
            title: title(&name),
            name,
            kind,
            default: None,
            from_factory: false,
            optional: false,
            nullable: false,
            description: None,
            bounds: Bounds::none(),
            length: Length::default(),
        }
    }

    /// The value of a config that does not name the field.
    #[must_use]
    pub fn with_default(mut self, default: impl Into<Value>) -> Self {
        self.default = Some(default.into());
        self
    }

    /// Like [`Field::with_default`], but not shown in the schema.
    #[must_use]
    pub fn with_hidden_default(mut self, default: impl Into<Value>) -> Self {
        self.default = Some(default.into());
        self.from_factory = true;
        self
    }

    /// Lets configs leave the field out, without a value for it.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Makes null a value of the field.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Replaces the title that the name gave.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Bounds an integer or a number.
    #[must_use]
    pub fn within(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Bounds the length of a string or a list.
    #[must_use]
    pub fn with_length(mut self, length: Length) -> Self {
        self.length = length;
        self
    }

    /// True when a config must name the field.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && !self.optional
    }
}

/// `n_lags` as a title: `N Lags`.
fn title(name: &str) -> String {
    let mut title = String::with_capacity(name.len());
    let mut after_letter = false;
    for character in name.chars() {
        match character {
            '_' => title.push(' '),
            c if after_letter => title.extend(c.to_lowercase()),
            c => title.extend(c.to_uppercase()),
        }
        after_letter = character.is_alphabetic();
    }
    title.trim().to_owned()
}

#[cfg(test)]
mod tests;
