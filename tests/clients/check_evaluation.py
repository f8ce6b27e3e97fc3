"""Usage: check_evaluation.py RESULT.nc DATASET.csv

Fails unless chap-core's evaluation holds a finite, non-negative forecast for every location of the
data set, in every split, at every horizon and in every sample.
"""

import csv
import json
import sys

import numpy
import xarray

result, dataset = sys.argv[1:]
with open(dataset, newline="") as file:
    locations = {row["location"] for row in csv.DictReader(file)}

evaluation = xarray.open_dataset(result)
assert set(evaluation["location"].values) == locations, "a location is missing from the forecasts"

splits = len(json.loads(evaluation.attrs["split_periods"]))
horizons = evaluation.sizes["horizon_distance"]
samples = evaluation.sizes["sample"]
assert splits == 2, f"{splits} splits instead of 2"
assert samples >= 1, "no samples"

forecast = evaluation["forecast"].values
values = forecast[numpy.isfinite(forecast)]
expected = len(locations) * splits * horizons * samples
assert values.size == expected, f"{values.size} forecasts instead of {expected}"
assert (values >= 0).all(), "a forecast is negative"

print(f"{expected} forecasts: {len(locations)} locations, {splits} splits, {horizons} horizons, {samples} samples")
