//! The service's card and its wire form.
//!
//! Key order and null handling follow chapkit, whose older clients reject any key that they do not
//! know; the keys of newer generations are therefore opt-in ([`ServiceInfo::with_provenance`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Email, HttpUrl};

/// The chapkit generation whose wire contract this service keeps, reported where clients ask for
/// provenance.
pub const CHAPKIT_VERSION: &str = "2.4.1";
/// The servicekit generation that goes with [`CHAPKIT_VERSION`].
pub const SERVICEKIT_VERSION: &str = "3.0.1";
/// The column that models forecast unless they say otherwise.
pub const DEFAULT_TARGET: &str = "disease_cases";

/// Why a text cannot be part of a service's card.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InfoError {
    #[error(
        "`{0}` is not a service id: lower-case letters and digits in groups joined by single \
         hyphens, starting with a letter, as in `dengue-baseline`"
    )]
    Id(String),
    #[error("`{0}` is not an http or https address")]
    Url(String),
    #[error("`{0}` is not an email address")]
    Email(String),
    #[error("`{given}` is not one of {valid}")]
    Choice { given: String, valid: String },
    #[error("min_prediction_periods ({min}) is greater than max_prediction_periods ({max})")]
    Horizon { min: u32, max: u32 },
}

/// What a model service is, who stands behind it, and what it needs and can do.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceInfo {
    pub id: ServiceId,
    /// The name that people see.
    pub display_name: String,
    /// The model's own version, free text.
    pub version: String,
    pub description: Option<String>,
    pub model_metadata: ModelMetadata,
    pub period_type: PeriodType,
    /// The shortest forecast horizon that the model accepts, in periods.
    pub min_prediction_periods: u32,
    /// The longest forecast horizon that the model accepts, in periods.
    pub max_prediction_periods: u32,
    /// Whether a config may name covariate columns beyond the required ones.
    pub allow_free_additional_continuous_covariates: bool,
    /// Columns that the training data must have.
    pub required_covariates: Vec<String>,
    /// Whether training and prediction need the polygons of the locations.
    pub requires_geo: bool,
    /// The column that the model forecasts. On the wire with provenance only.
    pub target: String,
    /// The ranges a tuner may search, in the orchestrator's notation. On the wire with provenance
    /// only.
    pub hpo_search_space: Option<Map<String, Value>>,
}

impl ServiceInfo {
    /// A monthly service with the contract's defaults; set the public fields to say more.
    ///
    /// # Panics
    /// When `id`, which is a literal of the program here, is not a service id. For an id from
    /// outside, parse a [`ServiceId`] and use [`ServiceInfo::with_id`].
    pub fn new(id: &str, display_name: &str) -> ServiceInfo {
        let id = id.parse().expect("the id is a literal that the programmer chose");
        ServiceInfo::with_id(id, display_name)
    }

    /// A monthly service with the contract's defaults under an id that has been checked.
    pub fn with_id(id: ServiceId, display_name: &str) -> ServiceInfo {
        ServiceInfo {
            id,
            display_name: display_name.to_owned(),
            version: "1.0.0".to_owned(),
            description: None,
            model_metadata: ModelMetadata::default(),
            period_type: PeriodType::Monthly,
            min_prediction_periods: 0,
            max_prediction_periods: 100,
            allow_free_additional_continuous_covariates: false,
            required_covariates: Vec::new(),
            requires_geo: false,
            target: DEFAULT_TARGET.to_owned(),
            hpo_search_space: None,
        }
    }

    /// Checks what no single field can: the horizon's bounds.
    pub fn check(&self) -> Result<(), InfoError> {
        let (min, max) = (self.min_prediction_periods, self.max_prediction_periods);
        if min > max { Err(InfoError::Horizon { min, max }) } else { Ok(()) }
    }

    /// The wire form with the second generation's keys: provenance after `model_metadata`, `target`
    /// and `hpo_search_space` at the end. Only for deployments whose clients are known to accept
    /// them.
    pub fn with_provenance<'a>(&'a self, git_revision: Option<&'a str>) -> WithProvenance<'a> {
        WithProvenance { info: self, git_revision }
    }

    fn wire<'a>(&'a self, provenance: Option<Provenance<'a>>) -> Wire<'a> {
        let ServiceInfo {
            id,
            display_name,
            version,
            description,
            model_metadata,
            period_type,
            min_prediction_periods,
            max_prediction_periods,
            allow_free_additional_continuous_covariates,
            required_covariates,
            requires_geo,
            target,
            hpo_search_space,
        } = self;
        let capability = provenance
            .is_some()
            .then_some(Capability { target, hpo_search_space: hpo_search_space.as_ref() });
        Wire {
            id,
            display_name,
            version,
            description: description.as_deref(),
            model_metadata,
            provenance,
            period_type: *period_type,
            min_prediction_periods: *min_prediction_periods,
            max_prediction_periods: *max_prediction_periods,
            allow_free_additional_continuous_covariates:
                *allow_free_additional_continuous_covariates,
            required_covariates,
            requires_geo: *requires_geo,
            capability,
        }
    }
}

impl Serialize for ServiceInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.wire(None).serialize(serializer)
    }
}

/// A [`ServiceInfo`] that is written with the second generation's keys.
#[derive(Clone, Copy, Debug)]
pub struct WithProvenance<'a> {
    info: &'a ServiceInfo,
    git_revision: Option<&'a str>,
}

impl Serialize for WithProvenance<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let provenance = Provenance {
            git_revision: self.git_revision,
            chapkit_version: CHAPKIT_VERSION,
            servicekit_version: SERVICEKIT_VERSION,
        };
        self.info.wire(Some(provenance)).serialize(serializer)
    }
}

/// Who made the model and how far to trust it. Every key is on the wire, null when unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelMetadata {
    pub author: Option<String>,
    pub author_note: Option<String>,
    /// The author's own judgement of the model's maturity.
    pub author_assessed_status: Option<AssessedStatus>,
    pub contact_email: Option<Email>,
    pub organization: Option<String>,
    pub organization_logo_url: Option<HttpUrl>,
    pub citation_info: Option<String>,
    pub repository_url: Option<HttpUrl>,
    pub documentation_url: Option<HttpUrl>,
}

/// A service's id in paths and with orchestrators: `^[a-z][a-z0-9]*(-[a-z0-9]+)*$`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServiceId(String);

impl ServiceId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceId {
    type Err = InfoError;

    fn from_str(text: &str) -> Result<ServiceId, InfoError> {
        let group = |group: &str| {
            !group.is_empty() && group.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.split('-').all(group) {
            Ok(ServiceId(text.to_owned()))
        } else {
            Err(InfoError::Id(text.to_owned()))
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The id that a free-form project name gives: `CHAP_EWARS (weekly)` becomes `chap-ewars-weekly`.
pub fn slugify(name: &str) -> ServiceId {
    let groups: Vec<String> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|group| !group.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let slug = groups.join("-");
    match slug.as_bytes().first() {
        None => ServiceId("mlproject".to_owned()),
        Some(first) if first.is_ascii_lowercase() => ServiceId(slug),
        Some(_) => ServiceId(format!("mlproject-{slug}")),
    }
}

/// The author's own judgement of a model, from "do not use" to "validated".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssessedStatus {
    Gray,
    Red,
    Orange,
    Yellow,
    Green,
}

impl AssessedStatus {
    pub const NAMES: &[&str] = &["gray", "red", "orange", "yellow", "green"];
}

impl FromStr for AssessedStatus {
    type Err = InfoError;

    fn from_str(text: &str) -> Result<AssessedStatus, InfoError> {
        match text {
            "gray" => Ok(AssessedStatus::Gray),
            "red" => Ok(AssessedStatus::Red),
            "orange" => Ok(AssessedStatus::Orange),
            "yellow" => Ok(AssessedStatus::Yellow),
            "green" => Ok(AssessedStatus::Green),
            _ => Err(choice(text, AssessedStatus::NAMES)),
        }
    }
}

/// The length of one row's period in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeriodType {
    Weekly,
    Monthly,
    /// Either, as the data has it. Clients of the first generation do not know this value.
    Any,
}

impl PeriodType {
    pub const NAMES: &[&str] = &["weekly", "monthly", "any"];
}

impl FromStr for PeriodType {
    type Err = InfoError;

    fn from_str(text: &str) -> Result<PeriodType, InfoError> {
        match text {
            "weekly" => Ok(PeriodType::Weekly),
            "monthly" => Ok(PeriodType::Monthly),
            "any" => Ok(PeriodType::Any),
            _ => Err(choice(text, PeriodType::NAMES)),
        }
    }
}

fn choice(given: &str, valid: &[&str]) -> InfoError {
    InfoError::Choice { given: given.to_owned(), valid: valid.join(", ") }
}

#[derive(Serialize)]
struct Wire<'a> {
    id: &'a ServiceId,
    display_name: &'a str,
    version: &'a str,
    description: Option<&'a str>,
    model_metadata: &'a ModelMetadata,
    #[serde(flatten)]
    provenance: Option<Provenance<'a>>,
    period_type: PeriodType,
    min_prediction_periods: u32,
    max_prediction_periods: u32,
    allow_free_additional_continuous_covariates: bool,
    required_covariates: &'a [String],
    requires_geo: bool,
    #[serde(flatten)]
    capability: Option<Capability<'a>>,
}

#[derive(Serialize)]
struct Provenance<'a> {
    git_revision: Option<&'a str>,
    chapkit_version: &'static str,
    servicekit_version: &'static str,
}

#[derive(Serialize)]
struct Capability<'a> {
    target: &'a str,
    hpo_search_space: Option<&'a Map<String, Value>>,
}
