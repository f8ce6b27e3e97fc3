use super::*;
use proptest::prelude::*;

fn request() -> SampleRequest {
    SampleRequest {
        kind: SampleKind::Train,
        locations: 2,
        periods: 2,
        features: 1,
        period_type: PeriodType::Monthly,
        geo: None,
        seed: 1,
        required_covariates: vec!["rainfall".to_owned(), "mean_temperature".to_owned()],
        config_covariates: vec![],
        horizon: (1, 12),
        config_id: None,
    }
}

fn train(request: &SampleRequest) -> Frame {
    match generate(request) {
        Sample::Train { data, .. } => data,
        Sample::Predict { .. } => panic!("a sample for training"),
    }
}

fn predict(request: SampleRequest) -> (Frame, Frame) {
    match generate(&SampleRequest { kind: SampleKind::Predict, ..request }) {
        Sample::Predict { historic, future, .. } => (historic, future),
        Sample::Train { .. } => panic!("a sample for prediction"),
    }
}

fn cell<'a>(frame: &'a Frame, row: usize, column: &str) -> &'a Cell {
    &frame.data[row][frame.column(column).unwrap()]
}

fn texts(frame: &Frame, column: &str) -> Vec<String> {
    let cells = (0..frame.rows()).map(|row| cell(frame, row, column));
    cells.map(|cell| cell.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_sample_for_training_has_the_shape_that_clients_know() {
    let wire = serde_json::to_value(generate(&request())).unwrap();
    assert_eq!(wire.as_object().unwrap().keys().collect::<Vec<_>>(), ["data"]);
    let data = &wire["data"];
    let columns = [
        "time_period",
        "location",
        "disease_cases",
        "population",
        "rainfall",
        "mean_temperature",
        "feature_0",
    ];
    assert_eq!(data["columns"], json!(columns));
    let types = ["string", "string", "number", "integer", "number", "number", "number"];
    let field = |(name, kind): (&&str, &&str)| json!({"name": name, "type": kind, "title": null, "description": null});
    let fields: Vec<Value> = columns.iter().zip(&types).map(field).collect();
    assert_eq!(data["schema"].to_string(), json!({"fields": fields}).to_string());
}

#[test]
fn rows_go_through_the_locations_of_a_period_before_the_next() {
    let data = train(&request());
    assert_eq!(texts(&data, "time_period"), ["2020-01", "2020-01", "2020-02", "2020-02"]);
    let locations = ["location_0", "location_1", "location_0", "location_1"];
    assert_eq!(texts(&data, "location"), locations);
    assert_eq!(cell(&data, 0, "population"), cell(&data, 2, "population"));
}

#[test]
fn weeks_are_counted_to_52() {
    let data = train(&SampleRequest {
        period_type: PeriodType::Weekly,
        locations: 1,
        periods: 53,
        ..request()
    });
    let periods = texts(&data, "time_period");
    assert_eq!((periods[0].as_str(), periods[51].as_str()), ("2020-W01", "2020-W52"));
    assert_eq!(periods[52], "2021-W01");
}

#[test]
fn a_sample_has_a_period_at_least() {
    assert_eq!(train(&SampleRequest { periods: 0, ..request() }).rows(), 2);
    assert!(train(&SampleRequest { locations: 0, ..request() }).is_empty());
}

#[test]
fn covariates_of_service_and_config_are_columns_once() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let data = train(&SampleRequest {
        required_covariates: names(&["rainfall", "humidity", "humidity"]),
        config_covariates: names(&["humidity", "wind", "feature_0"]),
        ..request()
    });
    assert_eq!(data.columns[6..], ["feature_0", "humidity", "wind"]);
    let fields = data.schema.unwrap().fields;
    assert!(fields[6..].iter().all(|field| field.kind == FieldType::Number));
}

#[test]
fn the_future_follows_the_past_within_the_models_horizon() {
    let (historic, future) = predict(SampleRequest { periods: 20, ..request() });
    assert_eq!((historic.horizon(), future.horizon()), (Some(20), Some(12)));
    assert_eq!(texts(&historic, "time_period").last().unwrap(), "2021-08");
    assert_eq!(texts(&future, "time_period")[0], "2021-09");
    assert!((0..future.rows()).all(|row| cell(&future, row, "disease_cases").is_null()));
    assert_eq!(cell(&historic, 0, "population"), cell(&future, 0, "population"));
    assert_eq!(historic.columns, future.columns);

    let (_, future) = predict(SampleRequest { periods: 1, horizon: (3, 6), ..request() });
    assert_eq!(future.horizon(), Some(3));
    let (_, future) = predict(SampleRequest { periods: 5, horizon: (0, 0), ..request() });
    assert_eq!(future.horizon(), Some(1));
}

#[test]
fn a_sample_for_prediction_has_the_shape_that_clients_know() {
    let request = SampleRequest {
        kind: SampleKind::Predict,
        config_id: Some("01K72PWT05GEXK1S24AVKAZ900".to_owned()),
        geo: Some(GeoShape::Polygon),
        ..request()
    };
    let wire = serde_json::to_value(generate(&request)).unwrap();
    let keys: Vec<_> = wire.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["historic", "future", "geo"]);
}

#[test]
fn locations_lie_on_the_map_where_clients_know_them() {
    let geo = |shape| {
        let request = SampleRequest {
            locations: 1,
            geo: Some(shape),
            config_id: Some("01K72PWT05GEXK1S24AVKAZ900".to_owned()),
            ..request()
        };
        let wire = serde_json::to_value(generate(&request)).unwrap();
        let keys: Vec<_> = wire.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["data", "config_id", "geo"]);
        wire["geo"].to_string()
    };
    // As recorded from the service that this contract comes from.
    assert_eq!(
        geo(GeoShape::Polygon),
        r#"{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[36.4,-1.7000000000000002],[37.199999999999996,-1.7000000000000002],[37.199999999999996,-0.9000000000000001],[36.4,-0.9000000000000001],[36.4,-1.7000000000000002]]]},"properties":{"id":"location_0"}}],"bbox":[36.4,-1.7000000000000002,37.199999999999996,-0.9000000000000001]}"#
    );
    assert_eq!(
        geo(GeoShape::Point),
        r#"{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Point","coordinates":[36.8,-1.3000000000000003]},"properties":{"id":"location_0"}}],"bbox":[36.8,-1.3000000000000003,36.8,-1.3000000000000003]}"#
    );
}

#[test]
fn a_map_without_locations_has_no_box() {
    let map = geo(0, GeoShape::Polygon);
    assert_eq!(map, json!({"type": "FeatureCollection", "features": []}));
}

#[test]
fn equal_seeds_make_equal_samples() {
    let one = train(&request());
    assert_eq!(one, train(&request()));
    assert_ne!(one, train(&SampleRequest { seed: 2, ..request() }));
    // And go on doing so from release to release.
    let first = json!(["2020-01", "location_0", 120.0, 59382, 269.23, 21.51, 49.28]);
    assert_eq!(json!(one.data[0]), first);
}

#[test]
fn the_size_is_known_beforehand() {
    assert_eq!(request().cells(), 2 * 2 * 7);
    let request = SampleRequest { kind: SampleKind::Predict, periods: 20, ..request() };
    assert_eq!(request.cells(), 2 * (20 + 12) * 7);
    let request = SampleRequest { locations: u32::MAX, periods: u32::MAX, ..request };
    assert!(request.cells() > MAX_CELLS);
}

proptest! {
    #[test]
    fn values_are_plausible(seed: u64, locations in 0..4_u32, periods in 0..30_u32, features in 0..3_u32) {
        let request = SampleRequest { seed, locations, periods, features, ..request() };
        let data = train(&request);
        prop_assert_eq!(data.data.iter().map(Vec::len).sum::<usize>() as u64, request.cells());
        let number = |row, column: &str| cell(&data, row, column).as_f64().unwrap();
        for row in 0..data.rows() {
            prop_assert!((50_000.0..=1_500_000.0).contains(&number(row, "population")));
            prop_assert!((0.0..=305.0).contains(&number(row, "rainfall")));
            prop_assert!((15.5..=32.5).contains(&number(row, "mean_temperature")));
            let cases = number(row, "disease_cases");
            prop_assert!((0.0..=200.0).contains(&cases) && cases.fract() == 0.0);
            for feature in 0..features {
                let value = number(row, &format!("feature_{feature}"));
                prop_assert!((0.0..=100.0).contains(&value));
            }
        }
    }
}
