"""Predicts cases: predict_model.py CONFIG FUTURE MODEL OUTPUT."""

import pickle
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib import fail, read_config, say
from lib.preprocessing import add_interactions, read_table, write_table


def main(config_path, future_path, model_path, output_path):
    say(f"Predicting with config: {read_config(config_path)}")
    with open(model_path, "rb") as file:
        model = pickle.load(file)
    names = model["features"]
    say(f"Loaded model with {len(names)} features")
    rows = read_table(future_path)
    say(f"Loaded {len(rows)} prediction samples")
    rows = add_interactions(rows)
    say("Engineered features for prediction")
    for row in rows:
        missing = [name for name in names if name not in row]
        if missing:
            fail(f"Prediction failed: missing columns {missing}")
        terms = [row[name] * weight for name, weight in zip(names, model["coefficients"])]
        row["sample_0"] = sum(terms) + model["intercept"]
    say(f"Made {len(rows)} predictions")
    write_table(output_path, rows)
    say(f"Predictions saved to {output_path}")
    print("SUCCESS: Prediction completed")


if __name__ == "__main__":
    main(*sys.argv[1:])
