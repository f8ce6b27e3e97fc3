"""Tables of places and periods: reading them from CSV, numbering their periods.

Nothing in here knows about dengue; `model.py` holds the statistics.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass, field
from datetime import date
from typing import Optional, Sequence


class InputError(ValueError):
    """Something about the given files or options that the caller can put right."""


@dataclass(frozen=True)
class Calendar:
    """How periods are numbered: neighbours differ by one. Lengths are in periods."""

    name: str
    year: int
    month: int

    def middle(self, period: int) -> date:
        """A day in the middle of the period, which tells its season."""
        if self is WEEKLY:
            return date.fromordinal(period * 7 + 4)
        return date(period // 12, period % 12 + 1, 15)

    def season(self, period: int) -> list[float]:
        """The yearly and the half-yearly wave, each as sine and cosine."""
        angle = 2 * math.pi * self.middle(period).timetuple().tm_yday / 365.25
        return [math.sin(angle), math.cos(angle), math.sin(2 * angle), math.cos(2 * angle)]

    def month_of_year(self, period: int) -> int:
        """0 for January, 11 for December."""
        return self.middle(period).month - 1


MONTHLY = Calendar("monthly", year=12, month=1)
WEEKLY = Calendar("weekly", year=52, month=4)
CALENDARS = {calendar.name: calendar for calendar in (MONTHLY, WEEKLY)}

WEEK = re.compile(r"([1-9]\d{3})-?W(\d{1,2})")
MONTH = re.compile(r"([1-9]\d{3})-?(\d{2})(?:-\d{2})?")


def read_period(text: str) -> tuple[Calendar, int]:
    """Reads `2023-W05` as an ISO week; `2023-01`, `202301` and `2023-01-31` as a month."""
    if week := WEEK.fullmatch(text):
        try:
            return WEEKLY, date.fromisocalendar(int(week[1]), int(week[2]), 1).toordinal() // 7
        except ValueError:
            pass  # A week 53 in a year of 52 is as unreadable as any other text.
    if month := MONTH.fullmatch(text):
        if 1 <= int(month[2]) <= 12:
            return MONTHLY, int(month[1]) * 12 + int(month[2]) - 1
    raise InputError(f"`{text}` is not a time period; expected one like 2023-01 or 2023-W05")


@dataclass
class Place:
    """What is known of one location: values by period number, absent where the cell was empty."""

    cases: dict[int, float] = field(default_factory=dict)
    population: dict[int, float] = field(default_factory=dict)
    covariates: dict[str, dict[int, float]] = field(default_factory=dict)

    def continued_by(self, later: Place, start: int) -> Place:
        """The cases before period `start`, with covariates and population of `later` besides."""
        return Place(
            cases={at: cases for at, cases in self.cases.items() if at < start},
            population={**self.population, **later.population},
            covariates={
                name: {**self.covariates.get(name, {}), **later.covariates.get(name, {})}
                for name in {**self.covariates, **later.covariates}
            },
        )


Row = tuple[str, str, int]
"""Time period as written, location, period number."""


@dataclass
class Table:
    """A CSV file as places, with the rows' keys in file order."""

    calendar: Optional[Calendar] = None
    places: dict[str, Place] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def read_number(text: Optional[str]) -> Optional[float]:
    """A number, or None for an empty cell, `NA`, `inf` and the huge fill values of climate grids."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if abs(number) < 1e15 else None


def read_table(path: str, covariates: Sequence[str]) -> Table:
    """Reads the named covariates besides cases and population; other columns are passed over."""
    table = Table()
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for column in ("time_period", "location"):
            if column not in (reader.fieldnames or []):
                raise InputError(f"{path} has no column `{column}`")
        for row in reader:
            text, location = (row["time_period"] or "").strip(), row["location"] or ""
            try:
                calendar, period = read_period(text)
            except InputError as error:
                raise InputError(f"{path}, line {reader.line_num}: {error}") from None
            if calendar is not (table.calendar or calendar):
                raise InputError(f"{path}, line {reader.line_num}: `{text}` mixes months and weeks")
            table.calendar = calendar
            table.rows.append((text, location, period))
            place = table.places.setdefault(location, Place())

            cases = read_number(row.get("disease_cases"))
            if cases is not None and cases >= 0:
                place.cases[period] = cases
            population = read_number(row.get("population"))
            if population is not None and population > 0:
                place.population[period] = population
            for name in covariates:
                value = read_number(row.get(name))
                if value is not None:
                    place.covariates.setdefault(name, {})[period] = value
    return table


def write_samples(path: str, rows: list[Row], samples: Sequence[Sequence[int]], n_samples: int) -> None:
    """One line for each row, in the same order: time period, location, `sample_0`, `sample_1`, …"""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time_period", "location", *(f"sample_{n}" for n in range(n_samples))])
        for (text, location, _), values in zip(rows, samples):
            writer.writerow([text, location, *values])
