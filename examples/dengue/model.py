"""A seasonal regression on log incidence, whose uncertainty is the errors of its own past forecasts.

    log((cases + 1) / population) = the level of the place
                                  + season and lagged climate, the same everywhere
                                  + the place's own departure from that season
                                  + what carries over from the latest anomaly
                                  + error

Everything is fitted by ridge regression, in three steps that each explain what the step before left
over: what places share, what sets a place apart, and how an anomaly fades. A step with little data
falls back on the step before it, so a place with a short history, or none, still gets a forecast.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass
from typing import Any, Iterable, Optional

from linear import dot, fit_ridge, mean
from options import Options
from tables import CALENDARS, Calendar, InputError, Place, Table

LONGEST = 12
"""Steps ahead for which fading is fitted; what lies further is treated like this step."""

ENOUGH_PATHS = 24
"""A place with fewer past forecasts to judge its errors by borrows those of all places."""

WIDEST = 3.0
"""Weather beyond this many typical departures counts as this many: a line through ordinary months
says nothing about a cloudburst."""

LARGEST_LOG = 30.0
"""Keeps exp() finite on absurd input; far above the log of any real count."""

LOGARITHMIC = {"rainfall"}
"""Covariates of which a doubling matters rather than an added millimetre."""

Usual = dict[str, list[Optional[float]]]
"""By covariate: the averages of January, February, …; None for a month never seen."""


@dataclass
class Learned:
    """What sets one place apart."""

    effect: list[float]
    """Level, then season waves, all as departures from what places share."""
    log_population: float
    """At the end of what was seen of the place."""
    usual: Usual
    residuals: dict[int, float]
    """By period: what level, season and climate leave unexplained."""

    @property
    def inflation(self) -> float:
        """How much larger errors are than residuals, which the fit has made small."""
        n, fitted = len(self.residuals), len(self.effect)
        return math.sqrt((n + fitted) / max(n - fitted, 1))


@dataclass
class Model:
    """All that `predict` needs from `train`."""

    calendar: Calendar
    n_lags: int
    ridge: float
    log_population: float
    """Of a place whose population is not known."""
    spreads: dict[str, float]
    """The covariates in use, each with its typical departure from a place's average."""
    shared: list[float]
    """Coefficients of the season waves, then of each covariate at each lag."""
    level: float
    """Log incidence of a place of which nothing is known."""
    places: dict[str, Learned]
    fading: list[list[float]]
    """For 1, 2, … steps ahead: what is left of the last month's and of the last year's anomaly."""

    def features(self, place: Place, usual: Usual, period: int) -> list[float]:
        """Season waves, then each covariate 1, 2, … months before in typical departures."""
        values = self.calendar.season(period)
        for name, spread in self.spreads.items():
            series, months = place.covariates.get(name, {}), usual[name]
            centre = mean(month for month in months if month is not None)
            for lag in range(1, self.n_lags + 1):
                first = period - lag * self.calendar.month
                departures = []
                for at in range(first, first + self.calendar.month):
                    stand_in = months[self.calendar.month_of_year(at)]
                    value = scaled(name, series[at]) if at in series else stand_in
                    departures.append(0.0 if value is None else (value - centre) / spread)
                values.append(max(-WIDEST, min(WIDEST, mean(departures))))
        return values

    def expected(self, place: Place, learned: Learned, period: int) -> float:
        """Log incidence as level, season and climate have it, anomalies left out."""
        features = self.features(place, learned.usual, period)
        own = [1.0, *self.calendar.season(period)]
        return self.level + dot(self.shared, features) + dot(learned.effect, own)

    def anomaly(self, residuals: dict[int, float], period: int) -> list[float]:
        """The mean residual of the month and of the year that end with `period`."""
        return [
            mean(residuals[at] for at in range(period - span + 1, period + 1) if at in residuals)
            for span in (self.calendar.month, self.calendar.year)
        ]


def train(table: Table, options: Options) -> Model:
    """Learns from all rows with a case count."""
    places = {location: place for location, place in table.places.items() if place.cases}
    if table.calendar is None or not places:
        raise InputError("there are no disease_cases to learn from")
    usual = {
        location: usual_weather(place, options.covariates, table.calendar)
        for location, place in places.items()
    }
    populations = [people for place in places.values() for people in place.population.values()]
    model = Model(
        calendar=table.calendar,
        n_lags=options.n_lags,
        ridge=options.ridge,
        log_population=mean(map(math.log, populations)),
        spreads=typical_departures(places, usual, options.covariates),
        shared=[],
        level=0.0,
        places={},
        fading=[],
    )

    features, incidence = {}, {}
    for location, place in places.items():
        features[location] = [model.features(place, usual[location], at) for at in sorted(place.cases)]
        incidence[location] = [log_incidence(place, at, model.log_population) for at in sorted(place.cases)]
    model.shared = fit_shared(features, incidence, options.ridge)

    model.level = mean(
        mean(incidence[location]) - mean(dot(model.shared, row) for row in features[location])
        for location in places
    )
    for location, place in places.items():
        model.places[location] = fit_place(model, place, usual[location])

    model.fading = fit_fading(model)
    return model


def fit_shared(
    features: dict[str, list[list[float]]], incidence: dict[str, list[float]], ridge: float
) -> list[float]:
    """Season and climate as they act everywhere, judged by the changes within each place.

    Neighbours share their weather and their epidemics, so a month in which fifty places report is
    closer to one observation than to fifty: the penalty grows with the number of places.
    """
    rows, targets = [], []
    for location, own in features.items():
        centre = [mean(column) for column in zip(*own)]
        rows += [[value - middle for value, middle in zip(row, centre)] for row in own]
        average = mean(incidence[location])
        targets += [value - average for value in incidence[location]]
    return fit_ridge(rows, targets, [ridge * len(features)] * len(rows[0]))


def fit_place(model: Model, place: Place, usual: Usual) -> Learned:
    """Level and season of one place: its level is its own after a few months, a season that differs
    from the shared one takes some years to believe."""
    known = sorted(place.cases)
    latest_population = log_population(place, max(known, default=0), model.log_population)
    learned = Learned([0.0] * 5, latest_population, usual, {})
    unexplained = [
        log_incidence(place, at, model.log_population) - model.expected(place, learned, at) for at in known
    ]
    rows = [[1.0, *model.calendar.season(at)] for at in known]
    learned.effect = fit_ridge(rows, unexplained, [1.0] + [model.ridge] * 4) if rows else learned.effect
    for at, value, row in zip(known, unexplained, rows):
        learned.residuals[at] = value - dot(learned.effect, row)
    return learned


def fit_fading(model: Model) -> list[list[float]]:
    """How much of an anomaly is left 1, 2, … periods later, in all places alike."""
    anomalies = [
        (learned.residuals, at, model.anomaly(learned.residuals, at))
        for learned in model.places.values()
        for at in learned.residuals
    ]
    fading = []
    for steps in range(1, LONGEST + 1):
        pairs = [(row, residuals[at + steps]) for residuals, at, row in anomalies if at + steps in residuals]
        rows, targets = [row for row, _ in pairs], [target for _, target in pairs]
        fading.append(fit_ridge(rows, targets, [model.ridge] * 2) if rows else [0.0, 0.0])
    return fading


@dataclass
class Forecast:
    """One place at the moment of forecasting."""

    place: Place
    learned: Learned
    latest: Optional[int]
    """The last period with a case count."""
    anomaly: list[float]

    def steps(self, period: int) -> int:
        """How far `period` lies from the last case count, not from the end of the table: reports
        come in late."""
        return LONGEST if self.latest is None else max(1, min(LONGEST, period - self.latest))


def predict(model: Model, historic: Table, future: Table, options: Options) -> list[list[int]]:
    """Sampled case counts for each row of `future`, in its order.

    Sample 7 is one possible future, the same one for all rows: its errors are those that one past
    forecast made, in all places and at each step ahead. So a sum over places or months of sample 7
    means something.
    """
    for table, name in ((historic, "historic"), (future, "future")):
        if table.calendar not in (None, model.calendar):
            ours, theirs = model.calendar.name, table.calendar.name
            raise InputError(f"the model was trained on {ours} data but the {name} data is {theirs}")
    periods: dict[str, set[int]] = {}
    for _, location, period in future.rows:
        periods.setdefault(location, set()).add(period)

    forecasts, errors = {}, {}
    past = PastErrors(model, options)
    for location, wanted in periods.items():
        place = historic.places.get(location, Place()).continued_by(future.places[location], min(wanted))
        forecasts[location] = forecast = start(model, location, place)
        steps = frozenset(forecast.steps(period) for period in wanted)
        errors[location] = past.draw(location, forecast.learned, steps)

    samples = []
    for _, location, period in future.rows:
        forecast = forecasts[location]
        steps = forecast.steps(period)
        centre = (
            model.expected(forecast.place, forecast.learned, period)
            + dot(model.fading[steps - 1], forecast.anomaly)
            + log_population(forecast.place, period, forecast.learned.log_population)
        )
        samples.append([whole_cases(centre + path[steps]) for path in errors[location]])
    return samples


def start(model: Model, location: str, place: Place) -> Forecast:
    """Where a place stands. One that training did not see is learned now, from its own history."""
    learned = model.places.get(location)
    if learned is None:
        learned = fit_place(model, place, usual_weather(place, model.spreads, model.calendar))
    if not place.cases:
        return Forecast(place, learned, None, [0.0, 0.0])
    latest = max(place.cases)
    residuals = {
        at: log_incidence(place, at, learned.log_population) - model.expected(place, learned, at)
        for at in place.cases
        if at > latest - model.calendar.year
    }
    return Forecast(place, learned, latest, model.anomaly(residuals, latest))


ErrorPath = dict[int, float]
"""By steps ahead: the error that the forecast from one past period made, in log incidence."""


class PastErrors:
    """What forecasts from past periods would have got wrong, to draw the errors of new ones from."""

    def __init__(self, model: Model, options: Options) -> None:
        self.model = model
        self.seed = options.seed
        self.borrowed: dict[frozenset[int], dict[int, list[ErrorPath]]] = {}
        periods = sorted({at for learned in model.places.values() for at in learned.residuals})
        random.Random(options.seed).shuffle(periods)
        # All past periods in turn, so that a hundred samples do not hang on which luck has drawn.
        self.origins = [periods[n % len(periods)] for n in range(options.n_samples)]

    def draw(self, location: str, learned: Learned, steps: frozenset[int]) -> list[ErrorPath]:
        """One path for each sample: what happened from its past period on, at this place if it has
        a history; where that is not known, what happened at some other time."""
        paths = self.paths(learned, steps)
        if len(paths) < ENOUGH_PATHS:
            paths = self.paths_everywhere(steps)
        chance = random.Random(f"{self.seed}/{location}")
        anything = [path for choice in paths.values() for path in choice]
        return [chance.choice(paths.get(origin, anything)) for origin in self.origins]

    def paths(self, learned: Learned, steps: frozenset[int]) -> dict[int, list[ErrorPath]]:
        """By the period they start from: the paths for which each of the steps is known."""
        paths = {}
        residuals = learned.residuals
        for origin in residuals:
            if all(origin + ahead in residuals for ahead in steps):
                anomaly = self.model.anomaly(residuals, origin)
                path = {}
                for ahead in steps:
                    carried = dot(self.model.fading[ahead - 1], anomaly)
                    path[ahead] = learned.inflation * (residuals[origin + ahead] - carried)
                paths[origin] = [path]
        return paths

    def paths_everywhere(self, steps: frozenset[int]) -> dict[int, list[ErrorPath]]:
        """The paths of all places. If no history is long enough for one, single residuals held."""
        if steps not in self.borrowed:
            places = self.model.places.values()
            merged: dict[int, list[ErrorPath]] = {}
            for learned in places:
                for origin, paths in self.paths(learned, steps).items():
                    merged.setdefault(origin, []).extend(paths)
            if not merged:
                for learned in places:
                    for at, residual in learned.residuals.items():
                        held = dict.fromkeys(steps, learned.inflation * residual)
                        merged.setdefault(at, []).append(held)
            self.borrowed[steps] = merged
        return self.borrowed[steps]


def scaled(name: str, value: float) -> float:
    """A covariate on the scale on which it is taken to act."""
    return math.log1p(max(value, 0.0)) if name in LOGARITHMIC else value


def usual_weather(place: Place, names: Iterable[str], calendar: Calendar) -> Usual:
    """What each month is like at a place; stands in where a value is missing."""
    usual: Usual = {}
    for name in names:
        months: list[list[float]] = [[] for _ in range(12)]
        for at, value in place.covariates.get(name, {}).items():
            months[calendar.month_of_year(at)].append(scaled(name, value))
        usual[name] = [mean(values) if values else None for values in months]
    return usual


def typical_departures(
    places: dict[str, Place], usual: dict[str, Usual], names: Iterable[str]
) -> dict[str, float]:
    """The standard deviation of each covariate within places. One that is absent or never changes
    is left out, for there is nothing to learn from it."""
    spreads = {}
    for name in names:
        values, departures = [], []
        for location, place in places.items():
            centre = mean(month for month in usual[location][name] if month is not None)
            own = [scaled(name, value) for value in place.covariates.get(name, {}).values()]
            values += own
            departures += [value - centre for value in own]
        spread = math.sqrt(mean(departure**2 for departure in departures))
        if spread > 1e-9 * max(map(abs, values), default=0.0):
            spreads[name] = spread
    return spreads


def log_population(place: Place, period: int, otherwise: float) -> float:
    """By the nearest census in time."""
    if not place.population:
        return otherwise
    if period in place.population:
        return math.log(place.population[period])
    return math.log(place.population[min(place.population, key=lambda at: abs(at - period))])


def log_incidence(place: Place, period: int, otherwise: float) -> float:
    """Cases count one more than reported, so that a month without any has a logarithm."""
    return math.log(place.cases[period] + 1) - log_population(place, period, otherwise)


def whole_cases(log_cases: float) -> int:
    return max(0, round(math.exp(min(log_cases, LARGEST_LOG)) - 1))


def save(model: Model, path: str) -> None:
    """Writes the model as JSON, which can be read by eye and runs nothing when loaded."""
    content = {**asdict(model), "calendar": model.calendar.name}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False)


def load(path: str) -> Model:
    with open(path, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    content["calendar"] = CALENDARS[content["calendar"]]
    content["places"] = {location: Learned(**learned) for location, learned in content["places"].items()}
    for learned in content["places"].values():
        # JSON has no whole numbers as keys.
        learned.residuals = {int(at): value for at, value in learned.residuals.items()}
    return Model(**content)
