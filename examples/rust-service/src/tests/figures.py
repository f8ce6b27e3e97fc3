"""Prints what the Python model learns from and forecasts for a directory with training.csv,
historic.csv, future.csv and config.json, as JSON: the model, the forecast of each row of the future
without its errors, and the errors that its samples are drawn from.

    python3 figures.py EXAMPLES/DENGUE DIRECTORY
"""

import json
import os
import sys

dengue, directory = sys.argv[1:]
sys.path.insert(0, dengue)

import model  # noqa: E402
from linear import dot  # noqa: E402
from options import read_options  # noqa: E402
from tables import Place, read_table  # noqa: E402

trained_path = os.path.join(directory, "model.json")
options = read_options(os.path.join(directory, "config.json"))
model.save(model.train(read_table(os.path.join(directory, "training.csv"), options.covariates), options), trained_path)
trained = model.load(trained_path)
historic, future = (
    read_table(os.path.join(directory, name), list(trained.spreads)) for name in ("historic.csv", "future.csv")
)

past = model.PastErrors(trained, options)
centres, errors = [], {}
for text, location, period in future.rows:
    first = min(at for _, other, at in future.rows if other == location)
    place = historic.places.get(location, Place()).continued_by(future.places[location], first)
    forecast = model.start(trained, location, place)
    ahead = forecast.steps(period)
    centre = (
        trained.expected(place, forecast.learned, period)
        + dot(trained.fading[ahead - 1], forecast.anomaly)
        + model.log_population(place, period, forecast.learned.log_population)
    )
    centres.append([ahead, centre])
    steps = frozenset([ahead])
    paths = past.paths(forecast.learned, steps), past.paths_everywhere(steps)
    errors[f"{location} {ahead}"] = [
        sorted([at, path[ahead]] for at, choice in found.items() for path in choice) for found in paths
    ]

# Fails if it cannot sample where the figures above could be had.
assert len(model.predict(trained, historic, future, options)) == len(future.rows)
with open(trained_path, encoding="utf-8") as file:
    print(json.dumps({"model": json.load(file), "centres": centres, "errors": errors}))
