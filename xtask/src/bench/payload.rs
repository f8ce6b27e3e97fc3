//! What the clients send: the same data for every contestant and in every run.

use serde_json::{Value, json};

/// The covariates that `bench-model` asks for, after the three columns that every data set has.
const COVARIATES: [&str; 3] = ["population", "rainfall", "mean_temperature"];

/// The requests of one train → predict cycle, rendered once.
#[derive(Debug)]
pub struct Payload {
    pub train: Vec<u8>,
    /// A prediction's body without its first member, the artifact's id.
    predict_rest: String,
}

impl Payload {
    /// `rows` rows of monthly data from `locations` places, to train on and as the history of a
    /// prediction three months ahead.
    pub fn new(config_id: &str, rows: usize, locations: usize) -> Payload {
        let run_info = json!({"prediction_periods": 3});
        let history = frame(0..rows, locations, true);
        let future = frame(rows..rows + 3 * locations, locations, false);
        let train = json!({"config_id": config_id, "data": history, "run_info": run_info});
        let predict = json!({"historic": history, "future": future, "run_info": run_info});
        Payload { train: train.to_string().into_bytes(), predict_rest: predict.to_string() }
    }

    pub fn predict(&self, artifact_id: &str) -> Vec<u8> {
        let rest = &self.predict_rest[1..];
        format!("{{\"artifact_id\":\"{artifact_id}\",{rest}").into_bytes()
    }
}

/// A config with values of its own in two of the model's fields.
pub fn config(number: usize) -> Vec<u8> {
    let data = json!({"prediction_periods": 3, "n_lags": number % 12, "mode": "slow"});
    json!({"name": format!("bench-{number}"), "data": data}).to_string().into_bytes()
}

fn frame(rows: std::ops::Range<usize>, locations: usize, with_cases: bool) -> Value {
    let mut columns = vec!["time_period", "location"];
    columns.extend(with_cases.then_some("disease_cases"));
    columns.extend(COVARIATES);
    let data: Vec<Value> = rows.map(|row| values(row, locations, with_cases)).collect();
    json!({"columns": columns, "data": data})
}

fn values(row: usize, locations: usize, with_cases: bool) -> Value {
    let (month, location) = (row / locations, row % locations);
    let tenths = |seed: usize, range: usize| ((row * seed) % range) as f64 / 10.0;
    let mut values = vec![
        json!(format!("{:04}-{:02}", 1950 + month / 12, 1 + month % 12)),
        json!(format!("location_{location:03}")),
    ];
    values.extend(with_cases.then(|| json!((row * 31) % 500)));
    values.extend([
        json!(100_000 + location * 1_000),
        json!(tenths(37, 3_000)),
        json!(20.0 + tenths(7, 150)),
    ]);
    Value::Array(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_names_its_artifact_and_asks_for_each_place_three_months_ahead() {
        let payload = Payload::new("config", 250, 5);
        let body: Value = serde_json::from_slice(&payload.predict("artifact")).unwrap();
        assert_eq!(body["artifact_id"], "artifact");
        assert_eq!(body["historic"]["data"].as_array().unwrap().len(), 250);
        let future = body["future"]["data"].as_array().unwrap();
        assert_eq!(future.len(), 15);
        assert_eq!(future[0][0], "1954-03", "fifty months after January 1950");
        assert_eq!(body["future"]["columns"].as_array().unwrap().len(), 5);
    }
}
