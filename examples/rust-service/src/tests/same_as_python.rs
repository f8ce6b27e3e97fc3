//! Both forms of the model learn the same: what Python finds is computed anew by each test.

use std::{collections::BTreeMap, path::Path, process::Command};

use modelyard::{Cell, ConfigSchema, Frame};
use modelyard_ml::project::Project;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Request, add, blank, remove};
use crate::{
    Options,
    calendar::{Calendar, Period},
    forecast::{Forecast, continued},
    info,
    model::Model,
    samples::{Steps, paths, paths_everywhere},
    table::Table,
};

const DENGUE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dengue");
const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/figures.py");

/// What `figures.py` prints.
#[derive(Debug, Deserialize)]
struct Figures {
    model: Value,
    /// For each row of the future: steps ahead, log of the cases.
    centres: Vec<(usize, f64)>,
    /// By location and steps ahead: the past errors of the place, and those of all places.
    errors: BTreeMap<String, [Vec<(Period, f64)>; 2]>,
}

impl Figures {
    fn of_python(request: &Request, options: &Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: Vec<u8>| {
            fs_err::write(directory.path().join(name), content).unwrap();
        };
        write("training.csv", request.training.to_csv());
        write("historic.csv", request.historic.to_csv());
        write("future.csv", request.future.to_csv());
        write("config.json", serde_json::to_vec(options).unwrap());
        let mut python = Command::new("python3");
        python.arg("-B").args([FIGURES, DENGUE]).arg(directory.path());
        let output = python.output().expect("python3 is needed for comparing with it");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn of_rust(request: &Request, options: &Options) -> Self {
        let table = Table::read("training", &request.training, &options.covariates()).unwrap();
        let model = Model::train(&table, options).unwrap();
        let read = |name, frame| Table::read(name, frame, &model.covariate_names()).unwrap();
        let (historic, future) =
            (read("historic", &request.historic), read("future", &request.future));
        let (mut centres, mut errors) = (Vec::new(), BTreeMap::new());
        for row in &future.rows {
            let same_place = future.rows.iter().filter(|it| it.place == row.place);
            let first = same_place.map(|it| it.period).min().unwrap();
            let place = continued(&historic, &future, &row.place, first);
            let forecast = Forecast::start(&model, &row.place, place);
            let ahead = forecast.steps(row.period);
            centres.push((ahead, forecast.centre(&model, row.period)));
            let steps = Steps::from([ahead]);
            let found =
                [paths(&model, &forecast.learned, &steps), paths_everywhere(&model, &steps)];
            let found = found.map(|paths| {
                let errors = paths.into_iter().flat_map(|(at, choice)| {
                    choice.into_iter().map(move |path| (at, path.at(ahead)))
                });
                let mut errors: Vec<(Period, f64)> = errors.collect();
                errors.sort_by(|(a, x), (b, y)| a.cmp(b).then(x.total_cmp(y)));
                errors
            });
            errors.insert(format!("{} {ahead}", row.place), found);
        }
        Figures { model: as_python_writes(&model), centres, errors }
    }
}

/// The two forms store the same, only the order of the covariates is said in another way.
fn as_python_writes(model: &Model) -> Value {
    let mut content = serde_json::to_value(model).unwrap();
    let object = content.as_object_mut().unwrap();
    object.remove("covariates");
    let spreads = model.covariates.iter().map(|it| (it.name.clone(), json!(it.spread)));
    object.insert("spreads".to_owned(), Value::Object(spreads.collect()));
    content
}

/// Compares the figures and gives their largest difference, in units of the larger one if that is
/// above 1.
#[track_caller]
fn assert_same(request: &Request, options: &Options) -> f64 {
    let (python, rust) = (Figures::of_python(request, options), Figures::of_rust(request, options));
    let Figures { model, centres, errors } = rust;
    let mut largest = 0.0_f64;
    let mut compare = |what: &str, rust: Value, python: Value| {
        let (difference, at) = difference(&rust, &python, what);
        assert!(difference < 1e-6, "{at} differs by {difference}");
        largest = largest.max(difference);
    };
    assert!(!centres.is_empty());
    compare("model", model, python.model);
    compare("centres", json!(centres), json!(python.centres));
    compare("errors", json!(errors), json!(python.errors));
    largest
}

/// The largest difference between two values, and where it is. Infinite where they are of different
/// kinds or lengths.
fn difference(left: &Value, right: &Value, path: &str) -> (f64, String) {
    let worst = |found: Vec<(f64, String)>| {
        let largest = found.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b));
        largest.unwrap_or((0.0, path.to_owned()))
    };
    match (left, right) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => worst(
            a.iter()
                .map(|(key, value)| {
                    difference(value, b.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"))
                })
                .collect(),
        ),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => worst(
            (0..)
                .zip(a.iter().zip(b))
                .map(|(at, (a, b))| difference(a, b, &format!("{path}[{at}]")))
                .collect(),
        ),
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            ((a - b).abs() / a.abs().max(b.abs()).max(1.0), path.to_owned())
        }
        _ if left == right => (0.0, path.to_owned()),
        _ => (f64::INFINITY, format!("{path} ({left} and {right})")),
    }
}

fn example() -> Request {
    let read = |name: &str| {
        let bytes = fs_err::read(Path::new(DENGUE).join("data").join(name)).unwrap();
        Frame::from_csv(&bytes).unwrap()
    };
    Request {
        training: read("training.csv"),
        historic: read("historic.csv"),
        future: read("future.csv"),
    }
}

/// Every seventh value is missing, one place is never seen before the forecast, another has no
/// history left, a third has only just begun to report; and there is a column nobody asked for.
fn with_holes(mut request: Request) -> Request {
    for frame in request.frames() {
        for (column, hole) in [("disease_cases", 3), ("rainfall", 5), ("mean_temperature", 6)] {
            blank(frame, column, |at| at % 7 == hole);
        }
        blank(frame, "population", |at| at % 5 == 0);
        add(frame, "note", |_| "seen".into());
    }
    let is_at = |place: &'static str| move |row: &Vec<Cell>| row[1] == place;
    let shift = |frame: &mut Frame, from: &'static str, to: &str| {
        let rows: Vec<Vec<Cell>> =
            frame.data.iter().filter(|it| is_at(from)(it)).cloned().collect();
        frame.data.extend(rows.into_iter().map(|mut row| {
            row[1] = to.into();
            row
        }));
    };
    // Known from its own history only.
    shift(&mut request.historic, "Ånäs", "newly reporting");
    shift(&mut request.future, "Ånäs", "newly reporting");
    // Known from its weather to come only.
    shift(&mut request.future, "Cua Lo", "never seen");
    request.historic.data.retain(|row| !is_at("Cua Lo")(row));
    let few = request.training.data.len() / 3 - 5;
    let mut seen = 0;
    request.training.data.retain(|row| {
        seen += usize::from(is_at("Ban, Thong")(row));
        !is_at("Ban, Thong")(row) || seen > few
    });
    request
}

#[test]
fn the_example_gives_what_python_gives() {
    let largest = assert_same(&example(), &Options::default());
    println!("the largest difference is {largest:e}");
}

#[test]
fn so_it_does_with_other_options() {
    let options = |n_lags, ridge| Options { n_lags, ridge, ..Options::default() };
    for options in [options(0, 10.0), options(12, 1.0), options(1, 0.0), options(3, 1e6)] {
        assert_same(&example(), &options);
    }
}

#[test]
fn so_it_does_with_a_covariate_that_the_config_names() {
    let mut request = example();
    for frame in request.frames() {
        add(frame, "humidity", |at| (60 + at * 31 % 29).into());
    }
    let additional = ["humidity", "rainfall", "absent"].map(str::to_owned).into();
    let options = Options { additional_continuous_covariates: additional, ..Options::default() };
    assert_same(&request, &options);
}

#[test]
fn months_with_holes_give_what_python_gives() {
    assert_same(&with_holes(Request::of(Calendar::Monthly)), &Options::default());
}

#[test]
fn weeks_with_holes_give_what_python_gives() {
    assert_same(&with_holes(Request::of(Calendar::Weekly)), &Options::default());
}

#[test]
fn without_climate_and_population_it_is_still_the_same() {
    let mut request = Request::of(Calendar::Monthly);
    for frame in request.frames() {
        for column in ["rainfall", "mean_temperature", "population"] {
            remove(frame, column);
        }
    }
    assert_same(&request, &Options::default());
}

#[test]
fn histories_of_a_few_months_give_what_python_gives() {
    for months in ["2017-01", "2017-02", "2017-05"] {
        let mut request = Request::of(Calendar::Monthly);
        request.training.data.retain(|row| row[0].as_str() <= Some(months));
        assert_same(&request, &Options::default());
    }
}

#[test]
fn users_can_set_the_same_as_in_python() {
    let own_options = |schema: ConfigSchema| {
        let mut properties = schema.json_schema()["properties"].clone();
        let fields = properties.as_object_mut().unwrap();
        // Every config has these; a manifest and a type describe them in their own words.
        assert!(fields.remove("prediction_periods").is_some());
        assert!(fields.remove("additional_continuous_covariates").is_some());
        properties
    };
    let python = own_options(Project::load(DENGUE).unwrap().config);
    assert_eq!(own_options(ConfigSchema::of::<Options>()), python);
}

#[test]
fn it_describes_itself_as_in_python() {
    let python = Project::load(DENGUE).unwrap().info;
    let mut rust = info().unwrap();
    assert_eq!(rust.id.as_str(), "dengue-seasonal-baseline-rust");
    rust.id = python.id.clone();
    rust.display_name.clone_from(&python.display_name);
    assert_eq!(rust, python);
}
