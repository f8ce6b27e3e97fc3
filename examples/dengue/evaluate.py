"""Scores the model against seasonal baselines on forecasts from past periods.

    python3 evaluate.py DATA [--periods 3] [--origins 12] [--config config.yml]

From each of the last origins, a forecast length apart, the model is trained on what was known then
and forecasts the periods that follow. Their weather is given, as the future data of a real forecast
carries it; their cases are not.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from typing import Sequence

import model
from linear import mean
from options import Options, read_options
from tables import InputError, Place, Row, Table, read_table


def crps(samples: Sequence[float], observed: float) -> float:
    """The continuous ranked probability score of a sample, in cases: 0 is best, and a single sample
    scores its absolute error."""
    ordered, n = sorted(samples), len(samples)
    distance = mean(abs(value - observed) for value in ordered)
    # Half the mean distance between two samples, as a sum over the sorted ones.
    spread = sum((2 * at - n + 1) * value for at, value in enumerate(ordered)) / n**2
    return distance - spread


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` of all samples lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def within(place: Place, first: float, last: float) -> Place:
    """What is known of a place from one period to another, both included."""

    def cut(series: dict[int, float]) -> dict[int, float]:
        return {at: value for at, value in series.items() if first <= at <= last}

    covariates = {name: cut(series) for name, series in place.covariates.items()}
    return Place(cut(place.cases), cut(place.population), covariates)


def forecast_from(
    table: Table, origin: int, periods: int, options: Options
) -> tuple[list[Row], list[list[int]]]:
    """The rows of the periods after `origin` and their samples, by what was known at `origin`."""
    past = Table(table.calendar)
    future = Table(table.calendar)
    for location, place in table.places.items():
        past.places[location] = within(place, -math.inf, origin)
        future.places[location] = within(place, origin + 1, origin + periods)
        future.places[location].cases.clear()
    future.rows = [row for row in table.rows if origin < row[2] <= origin + periods]
    return future.rows, model.predict(model.train(past, options), past, future, options)


class Scores:
    """The scores of single forecasts, by forecaster and steps ahead; all steps together are step 0."""

    def __init__(self) -> None:
        self.crps: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.error: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.covered: dict[tuple[str, int], list[bool]] = defaultdict(list)

    def add(self, forecaster: str, steps: int, samples: Sequence[float], observed: float) -> None:
        for key in ((forecaster, steps), (forecaster, 0)):
            self.crps[key].append(crps(samples, observed))
            self.error[key].append(abs(quantile(samples, 0.5) - observed))
        for level in (50, 90):
            tail = (100 - level) / 200
            inside = quantile(samples, tail) <= observed <= quantile(samples, 1 - tail)
            self.covered[forecaster, level].append(inside)


def evaluate(table: Table, periods: int, origins: int, options: Options) -> Scores:
    """Scores the forecasts for which the counts at the origin and a year before are known too."""
    scores = Scores()
    year = table.calendar.year
    last = max(at for place in table.places.values() for at in place.cases)
    for back in range(1, origins + 1):
        origin = last - back * periods
        rows, samples = forecast_from(table, origin, periods, options)
        for (_, location, at), drawn in zip(rows, samples):
            cases = table.places[location].cases
            year_ago = at - year
            if year_ago > origin or not {at, origin, year_ago} <= cases.keys():
                continue
            same_month = [cases[past] for past in cases if past <= year_ago and (at - past) % year == 0]
            scores.add("the model", at - origin, drawn, cases[at])
            scores.add("same month, all years", at - origin, same_month, cases[at])
            scores.add("same month, last year", at - origin, [cases[year_ago]], cases[at])
            scores.add("latest count", at - origin, [cases[origin]], cases[at])
    return scores


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("data")
    arguments.add_argument("--periods", type=int, default=3, help="length of a forecast")
    arguments.add_argument("--origins", type=int, default=12, help="number of forecasts")
    arguments.add_argument("--config", default="")
    given = arguments.parse_args()

    options = read_options(given.config)
    table = read_table(given.data, options.covariates)
    began = time.perf_counter()
    scores = evaluate(table, given.periods, given.origins, options)
    seconds = time.perf_counter() - began
    if not scores.crps:
        raise InputError("no forecast has a year of cases before it; try fewer --origins")

    steps = [*range(1, given.periods + 1), 0]
    print(" " * 25 + "".join(f"{f'{ahead} ahead' if ahead else 'all':>10}" for ahead in steps))
    for title, found in (("CRPS", scores.crps), ("absolute error", scores.error)):
        print(title)
        for forecaster in dict.fromkeys(forecaster for forecaster, _ in found):
            means = (mean(found[forecaster, ahead]) for ahead in steps)
            print(f"  {forecaster:<23}" + "".join(f"{value:>10.2f}" for value in means))
    for level in (50, 90):
        print(f"the model's {level} % intervals hold {100 * mean(scores.covered['the model', level]):.0f} %")
    print(f"{len(scores.crps['the model', 0])} forecasts, {given.origins} trainings, {seconds:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"evaluate: {error}")
