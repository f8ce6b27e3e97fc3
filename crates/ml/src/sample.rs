//! Made-up data in the shape that a model expects: for trying a service out before there is data.
//!
//! Each location has its own level, population and season; rain follows the season, and cases follow
//! both, so that a model has something to learn.

use std::collections::HashSet;
use std::f64::consts::TAU;

use modelyard_run::frame::{Cell, FieldType, Frame};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::info::PeriodType;

/// No sample has more locations than this.
pub const MAX_LOCATIONS: u32 = 10_000;

/// No sample has more periods than this.
pub const MAX_PERIODS: u32 = 100_000;

/// No sample has more made-up features than this.
pub const MAX_FEATURES: u32 = 1_000;

/// No sample has more cells than this, see [`SampleRequest::cells`].
pub const MAX_CELLS: u64 = 1_000_000;

/// The first year of the data.
const FIRST_YEAR: u32 = 2020;

/// Edge of a location on the map, in degrees; the locations lie around Nairobi.
const CELL_DEGREES: f64 = 0.8;
const CENTRE: [f64; 2] = [36.8, -1.3];

/// What to make.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    pub kind: SampleKind,
    /// How many locations, at most [`MAX_LOCATIONS`].
    pub locations: u32,
    /// How many periods, at most [`MAX_PERIODS`]; 0 counts as 1. Of a sample for prediction, these
    /// are the historic ones, and the horizon as far as `horizon` allows.
    pub periods: u32,
    /// How many columns `feature_0`, `feature_1` and so on, at most [`MAX_FEATURES`].
    pub features: u32,
    /// The length of a period; monthly when the model takes any.
    pub period_type: PeriodType,
    /// How locations are drawn on the map, if they are.
    pub geo: Option<GeoShape>,
    /// Equal seeds make equal samples. They are not those that a Python service makes of the seed.
    pub seed: u64,
    /// Columns that the service asks for, and further ones that the config names.
    pub required_covariates: Vec<String>,
    pub config_covariates: Vec<String>,
    /// The fewest and the most periods that the model predicts.
    pub horizon: (u32, u32),
    /// Given back with a sample for training.
    pub config_id: Option<String>,
}

/// What the sample is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleKind {
    Train,
    Predict,
}

/// What a location looks like on the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeoShape {
    /// A square that touches its neighbours.
    Polygon,
    /// The middle of it.
    Point,
}

impl SampleRequest {
    /// How many cells the sample will have. More than [`MAX_CELLS`] are more than anybody needs.
    pub fn cells(&self) -> u64 {
        let horizon = match self.kind {
            SampleKind::Train => 0,
            SampleKind::Predict => self.future_periods(),
        };
        let periods = u64::from(self.past_periods()) + u64::from(horizon);
        let columns = self.columns().len() as u64;
        u64::from(self.locations).saturating_mul(periods).saturating_mul(columns)
    }

    fn past_periods(&self) -> u32 {
        self.periods.max(1)
    }

    fn future_periods(&self) -> u32 {
        let (fewest, most) = self.horizon;
        let fewest = fewest.max(1);
        self.periods.clamp(fewest, most.max(fewest))
    }

    fn columns(&self) -> Vec<String> {
        let canonical = FIXED.map(str::to_owned).into_iter();
        let features = (0..self.features).map(|index| format!("feature_{index}"));
        let covariates = self.required_covariates.iter().chain(&self.config_covariates).cloned();
        let mut seen = HashSet::new();
        let columns = canonical.chain(features).chain(covariates);
        columns.filter(|it| seen.insert(it.clone())).collect()
    }
}

/// Columns of every sample; most models take them.
const FIXED: [&str; 6] =
    ["time_period", "location", "disease_cases", "population", "rainfall", "mean_temperature"];

/// A body for training or prediction, less the id of what to train or predict with.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Sample {
    Train {
        #[serde(serialize_with = "described")]
        data: Frame,
        #[serde(skip_serializing_if = "Option::is_none")]
        config_id: Option<String>,
        /// A feature collection as in RFC 7946.
        #[serde(skip_serializing_if = "Option::is_none")]
        geo: Option<Value>,
    },
    Predict {
        #[serde(serialize_with = "described")]
        historic: Frame,
        /// The periods after the historic ones; its `disease_cases` are null.
        #[serde(serialize_with = "described")]
        future: Frame,
        #[serde(skip_serializing_if = "Option::is_none")]
        geo: Option<Value>,
    },
}

/// Makes a sample. The caller has checked the size of `request`.
pub fn generate(request: &SampleRequest) -> Sample {
    let geo = request.geo.map(|shape| geo(request.locations, shape));
    let mut maker = Maker::new(request);
    let data = maker.frame(0, request.past_periods());
    match request.kind {
        SampleKind::Train => Sample::Train { data, config_id: request.config_id.clone(), geo },
        SampleKind::Predict => {
            let mut future = maker.frame(request.past_periods(), request.future_periods());
            hide_cases(&mut future);
            Sample::Predict { historic: data, future, geo }
        }
    }
}

fn hide_cases(future: &mut Frame) {
    if let Some(cases) = future.column("disease_cases") {
        for row in &mut future.data {
            row[cases] = Cell::Null;
        }
    }
}

struct Maker {
    columns: Vec<String>,
    numeric: Vec<String>,
    weekly: bool,
    locations: Vec<Location>,
    chance: Chance,
}

/// What stays the same about a location.
struct Location {
    name: String,
    population: u64,
    /// Where in the year its season begins, from 0 to 1.
    phase: f64,
    base_cases: f64,
    amplitude: f64,
}

impl Maker {
    fn new(request: &SampleRequest) -> Self {
        let mut chance = Chance(request.seed);
        let locations = (0..request.locations).map(|index| Location {
            name: location_name(index),
            population: 50_000 + chance.below(1_450_001),
            phase: chance.unit(),
            base_cases: chance.between(20.0, 70.0),
            amplitude: chance.between(0.45, 0.7),
        });
        let locations = locations.collect();
        let mut numeric = request.required_covariates.clone();
        numeric.extend_from_slice(&request.config_covariates);
        Maker {
            columns: request.columns(),
            numeric,
            weekly: request.period_type == PeriodType::Weekly,
            locations,
            chance,
        }
    }

    /// The rows of `count` periods, each with all locations, beginning `first` periods after the
    /// beginning of time.
    fn frame(&mut self, first: u32, count: u32) -> Frame {
        let mut data = Vec::new();
        for period in first..first.saturating_add(count) {
            for index in 0..self.locations.len() {
                data.push(self.row(period, index));
            }
        }
        let mut frame = Frame::new(self.columns.clone(), data);
        frame.schema = Some(frame.infer_schema(&self.numeric));
        frame
    }

    fn row(&mut self, period: u32, location: usize) -> Vec<Cell> {
        let location = &self.locations[location];
        let chance = &mut self.chance;
        let time = year_fraction(period, self.weekly);
        let season = (TAU * (time - location.phase)).sin();
        let rainfall = (150.0 + 130.0 * season + chance.between(-25.0, 25.0)).max(0.0);
        let temperature = 24.0 + 7.0 * (TAU * (time - 0.08)).sin() + chance.between(-1.5, 1.5);
        let cases = location.base_cases * (1.0 + location.amplitude * season)
            + 0.06 * rainfall
            + 4.0 * chance.normal();
        let mut row = Vec::with_capacity(self.columns.len());
        row.push(time_period(period, self.weekly).into());
        row.push(location.name.as_str().into());
        row.push(cases.round().max(0.0).into());
        row.push(location.population.into());
        row.push(cents(rainfall).into());
        row.push(cents(temperature).into());
        let covariates = self.columns.len() - FIXED.len();
        for index in 0..covariates {
            let phase = (index as f64 + 1.0) / (covariates as f64 + 1.0);
            let value = 50.0 + 35.0 * (TAU * (time - phase)).sin() + chance.between(-8.0, 8.0);
            row.push(cents(value.clamp(0.0, 100.0)).into());
        }
        row
    }
}

fn periods_per_year(weekly: bool) -> u32 {
    if weekly { 52 } else { 12 }
}

fn year_fraction(period: u32, weekly: bool) -> f64 {
    let length = periods_per_year(weekly);
    f64::from(period % length) / f64::from(length)
}

fn time_period(period: u32, weekly: bool) -> String {
    let length = periods_per_year(weekly);
    let year = FIRST_YEAR + period / length;
    let number = period % length + 1;
    if weekly { format!("{year}-W{number:02}") } else { format!("{year}-{number:02}") }
}

fn location_name(index: u32) -> String {
    format!("location_{index}")
}

fn cents(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The locations as a grid on the map, with the box around it.
fn geo(locations: u32, shape: GeoShape) -> Value {
    let columns = f64::from(locations).sqrt().ceil().max(1.0);
    let rows = (f64::from(locations) / columns).ceil().max(1.0);
    let west = CENTRE[0] - columns * CELL_DEGREES / 2.0;
    let south = CENTRE[1] - rows * CELL_DEGREES / 2.0;
    let mut bounds = Extent::default();
    let mut features = Vec::new();
    for index in 0..locations {
        let column = f64::from(index) % columns;
        let row = (f64::from(index) / columns).floor();
        let corner = [west + column * CELL_DEGREES, south + row * CELL_DEGREES];
        let geometry = geometry(corner, shape, &mut bounds);
        let properties = json!({"id": location_name(index)});
        features.push(json!({"type": "Feature", "geometry": geometry, "properties": properties}));
    }
    let mut collection = json!({"type": "FeatureCollection", "features": features});
    if let Some(bounds) = bounds.0 {
        collection["bbox"] = json!(bounds);
    }
    collection
}

fn geometry([west, south]: [f64; 2], shape: GeoShape, bounds: &mut Extent) -> Value {
    let [east, north] = [west + CELL_DEGREES, south + CELL_DEGREES];
    match shape {
        GeoShape::Point => {
            let middle = [west + CELL_DEGREES / 2.0, south + CELL_DEGREES / 2.0];
            bounds.include(middle);
            json!({"type": "Point", "coordinates": middle})
        }
        GeoShape::Polygon => {
            bounds.include([west, south]);
            bounds.include([east, north]);
            let ring = [[west, south], [east, south], [east, north], [west, north], [west, south]];
            json!({"type": "Polygon", "coordinates": [ring]})
        }
    }
}

/// West, south, east and north of everything included so far.
#[derive(Default)]
struct Extent(Option<[f64; 4]>);

impl Extent {
    fn include(&mut self, [x, y]: [f64; 2]) {
        let [west, south, east, north] = self.0.unwrap_or([x, y, x, y]);
        self.0 = Some([west.min(x), south.min(y), east.max(x), north.max(y)]);
    }
}

/// The frame with everything there is to say about its columns, nulls included.
fn described<S: Serializer>(frame: &Frame, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Described<'a> {
        name: &'a str,
        #[serde(rename = "type")]
        kind: FieldType,
        title: Option<&'a str>,
        description: Option<&'a str>,
    }
    let fields = frame.schema.iter().flat_map(|schema| &schema.fields);
    let fields: Vec<Described<'_>> = fields
        .map(|field| Described {
            name: &field.name,
            kind: field.kind,
            title: field.title.as_deref(),
            description: field.description.as_deref(),
        })
        .collect();
    let mut wire = serializer.serialize_struct("Frame", 3)?;
    wire.serialize_field("columns", &frame.columns)?;
    wire.serialize_field("data", &frame.data)?;
    wire.serialize_field(
        "schema",
        &serde_json::Map::from_iter([("fields".to_owned(), json!(fields))]),
    )?;
    wire.end()
}

/// `SplitMix64`. Our own, because samples shall stay the same over releases, which generators of
/// libraries do not promise.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to but not including 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
