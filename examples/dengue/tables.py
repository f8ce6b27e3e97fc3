"""The files a model run is given: CSV tables, their time periods, and config.yml.

Nothing in here knows about dengue; `model.py` holds the statistics.
"""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

NO_VALUE = {"", "na", "nan", "n/a", "null", "none"}


@dataclass(frozen=True)
class Calendar:
    """How the periods of one table are numbered; neighbouring periods differ by one.

    `year` and `month` are lengths in periods, `month` rounded to whole ones.
    """

    name: str
    year: int
    month: int

    def middle(self, period: int) -> date:
        """A day in the middle of the period, which tells its season."""
        if self.name == "weekly":
            return date.fromordinal(period * 7 + 4)
        return date(period // 12, period % 12 + 1, 15)

    def season(self, period: int) -> list[float]:
        """The yearly and the half-yearly wave at the middle of the period."""
        angle = 2 * math.pi * self.middle(period).timetuple().tm_yday / 365.25
        return [math.sin(angle), math.cos(angle), math.sin(2 * angle), math.cos(2 * angle)]

    def calendar_month(self, period: int) -> int:
        """The month of the year the period lies in, 0 to 11."""
        return self.middle(period).month - 1


MONTHLY = Calendar("monthly", year=12, month=1)
WEEKLY = Calendar("weekly", year=52, month=4)
CALENDARS = {calendar.name: calendar for calendar in (MONTHLY, WEEKLY)}

WEEK = re.compile(r"(\d{4})-?W(\d{1,2})")
MONTH = re.compile(r"(\d{4})-?(\d{2})(-\d{2})?")


def read_period(text: str) -> tuple[Calendar, int]:
    """Read `2023-W05` as a week, `2023-01`, `202301` or `2023-01-31` as a month."""
    if week := WEEK.fullmatch(text.strip()):
        try:
            monday = date.fromisocalendar(int(week[1]), int(week[2]), 1)
            return WEEKLY, monday.toordinal() // 7
        except ValueError:
            pass
    if month := MONTH.fullmatch(text.strip()):
        year, number = int(month[1]), int(month[2])
        if year >= 1 and 1 <= number <= 12:
            return MONTHLY, year * 12 + number - 1
    raise ValueError(f"`{text}` is no time period; expected one like 2023-01 or 2023-W05")
