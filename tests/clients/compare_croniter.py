"""Asks croniter when 200 cron expressions fire in five time zones over ten years, and whether
Modelyard says the same.

    compare_croniter.py PROGRAM

PROGRAM is the example `cron_times` of `modelyard-flow`. Expressions that fire seldom are compared
over all ten years; of those that fire often, which croniter would take hours for, the days around
every change of a zone's offset are, and days in between.
"""

import os
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import tzdata

# Both sides read the same time zones, those of the pinned package, whatever the machine has.
ZONE_FILES = Path(tzdata.__file__).parent / "zoneinfo"
os.environ["PYTHONTZPATH"] = os.environ["TZDIR"] = str(ZONE_FILES)

from zoneinfo import ZoneInfo  # noqa: E402, reads PYTHONTZPATH when it is imported

from croniter import croniter  # noqa: E402

# Clocks go forward and back by an hour; in the south; at midnight; by half an hour; never, and 45
# minutes off.
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
]
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
END = datetime(2036, 1, 1, tzinfo=timezone.utc)
EXPRESSIONS = 200
# An expression that fires more often in ten years is compared in windows.
SELDOM = 8_000

# What people write, and what meets the hours in which clocks change.
WRITTEN = """
* * * * *|*/5 * * * *|*/15 * * * *|0,30 * * * *|7-59/20 * * * *|0 * * * *|30 * * * *|59 * * * *
@hourly|@daily|@weekly|@monthly|@yearly|@annually|0 0 * * *|0 12 * * *|59 23 * * *|30 23 * * *
0 2 * * *|30 2 * * *|15 2 * * *|45 1 * * *|30 1 * * *|0 1 * * *|0 3 * * *|30 0 * * *|5 0 * * *
*/15 2 * * *|*/20 1-3 * * *|0,30 1,2 * * *|*/10 23 * * *|*/10 0 * * *|30 */2 * * *|0 1-23/2 * * *
15 0-22 * * *|45 1-23 * * *|30 2 * * SUN|30 2 * * SAT,SUN|30 23 * * SAT|0 0 * * SUN|15 0 * * 7
30 2 29 3 *|30 2 25 10 *|30 1 1 11 *|15 2 4 10 *|45 1 5 4 *|0 0 6 9 *|30 23 4 4 *|*/7 2 25-31 3,10 *
0 0 29 2 *|0 12 31 * *|0 0 30 4,6 *|0 9 1 JAN *|0 9 * JAN-MAR/2 MON-FRI|0 8-18 * * MON-FRI
0 0 1,15 * WED|30 2 13 * FRI|0 0 */2 * MON|0 6 1-7 * */2|0 0 31 2 SUN|15 10 1-31/10 */5 0-7/3
*/30 9-17 * 6-8 1-5|0 22 * * FRI-SUN|5 4 8-14 * SUN|0 2 1-7 * 0|23 0-20/2 * * *|0 4 8 4 *
""".split("\n")


def expressions():
    """The same ones on every run."""
    chance = random.Random(20261121)
    found = [it for line in WRITTEN for it in line.split("|") if it]
    months = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
    weekdays = "SUN MON TUE WED THU FRI SAT".split()

    def value(least, greatest, names):
        number = chance.randint(least, greatest)
        return names[number - least] if names and chance.random() < 0.4 else str(number)

    def item(least, greatest, names):
        kind = chance.random()
        if kind < 0.6:
            return value(least, greatest, names)
        step = f"/{chance.randint(2, max(2, (greatest - least) // 2))}" if kind > 0.8 else ""
        first, last = sorted(chance.sample(range(least, greatest + 1), 2))
        return f"{first}-{last}{step}"

    def field(star, least, greatest, names=()):
        kind = chance.random()
        if kind < star:
            return "*"
        if kind < star + 0.1:
            return f"*/{chance.randint(2, max(2, (greatest - least) // 2))}"
        count = chance.choice([1, 1, 1, 2, 3])
        return ",".join(item(least, greatest, names) for _ in range(count))

    while len(found) < EXPRESSIONS:
        # Half of them at the hours in which clocks change.
        hour = field(0.2, 0, 23) if chance.random() < 0.5 else chance.choice(
            ["0", "1", "2", "3", "23", "1,2", "0-3", "2-4", "22-23", "*/2", "1-23/3", "0,23"]
        )
        made = " ".join([
            field(0.05, 0, 59),
            hour,
            field(0.55, 1, 31),
            field(0.6, 1, 12, months),
            field(0.55, 0, 6, weekdays),
        ])
        if made not in found and fires(made):
            found.append(made)
    assert len(found) == len(set(found)) == EXPRESSIONS, len(found)
    return found


def fires(expression):
    """Whether there is such a day: croniter looks for one for fifty years."""
    _, _, days, months, weekdays = croniter.expand(expression)[0]
    months = range(1, 13) if months == ["*"] else months
    longest = max({2: 29, 4: 30, 6: 30, 9: 30, 11: 30}.get(it, 31) for it in months)
    return days == ["*"] or weekdays != ["*"] or min(days) <= longest


def often(expression):
    """About how often it fires in ten years."""
    def share(field, whole):
        return 1 if field == ["*"] else len(field) / whole

    minutes, hours, days, months, weekdays = croniter.expand(expression)[0]
    day, weekday = share(days, 31), share(weekdays, 7)
    either = day * weekday if 1 in (day, weekday) else min(1, day + weekday)
    return 3653 * 1440 * share(minutes, 60) * share(hours, 24) * share(months, 12) * either


def changes(zone):
    """The instants at which the zone's offset changes."""
    found, at = [], BEGIN
    while at < END:
        after = at + timedelta(days=1)
        if at.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            low, high = at, after
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high.replace(microsecond=0))
        at = after
    return found


def windows(expression, zone):
    """Where to compare, as pairs of instants."""
    count = often(expression)
    if count <= SELDOM:
        return [(BEGIN, END)]
    day = timedelta(days=1)
    around = day * 2 if count < 100_000 else day
    chance = random.Random(expression)
    pairs = [(it - around, it + around) for it in changes(zone)]
    for _ in range(10):
        begin = BEGIN + timedelta(minutes=chance.randrange(3650 * 1440))
        pairs.append((begin, begin + day))
    return pairs


def asked(expression, zone, begin, end):
    """What croniter says, in seconds since 1970."""
    times, it = [], croniter(expression, begin.astimezone(zone))
    while True:
        seconds = int(it.get_next(float))
        if seconds > end.timestamp():
            return times
        times.append(seconds)


def is_passed_over(expression, zone, seconds, theirs):
    """Whether a time that only we have is one that croniter passes over against its own word.

    When clocks are set back, croniter fires at what happens twice twice, as we do. It looks for the
    second time only when it goes on from the first to a time of another offset, and only by the
    difference of the two. So it passes over it when the time after it is in the next summer (`30 2
    25 10 *`), and sometimes when clocks are set back by less than an hour. Asked from a second
    before, it names the very time.
    """
    local = datetime.fromtimestamp(seconds, zone)
    if local.fold == 0:
        return False
    first = local.replace(fold=0)
    back = first.utcoffset() - local.utcoffset()
    after = next((it for it in theirs if it > seconds), END.timestamp())
    skips = datetime.fromtimestamp(after, zone).utcoffset() == first.utcoffset()
    before = datetime.fromtimestamp(seconds - 1, zone)
    return (back < timedelta(hours=1) or skips) and croniter(expression, before).get_next(float) == seconds


def compare(task):
    program, expression = task
    lines, pairs = [], []
    for name in ZONES:
        for begin, end in windows(expression, ZoneInfo(name)):
            pairs.append((name, begin, end))
            lines.append(f"{expression}\t{name}\t{int(begin.timestamp())}\t{int(end.timestamp())}\n")
    ran = subprocess.run([program], input="".join(lines), capture_output=True, text=True)
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr)
    answers = ran.stdout.splitlines()
    if len(answers) != len(pairs):
        raise RuntimeError(f"{expression}: {len(answers)} answers to {len(pairs)} questions")
    agreed, passed_over, wrong = 0, 0, []
    for (name, begin, end), answer in zip(pairs, answers):
        zone, ours = ZoneInfo(name), [int(it) for it in answer.split()]
        theirs = asked(expression, zone, begin, end)
        agreed += len(set(ours) & set(theirs))
        if ours != sorted(set(ours)):
            wrong.append((name, begin.timestamp(), "ours are not in order"))
        for seconds in sorted(set(ours) ^ set(theirs)):
            if seconds in theirs:
                wrong.append((name, seconds, "only croniter's"))
            elif is_passed_over(expression, zone, seconds, theirs):
                passed_over += 1
            else:
                wrong.append((name, seconds, "only ours"))
    whole = often(expression) <= SELDOM
    return expression, whole, agreed, passed_over, wrong


def main():
    tasks = [(sys.argv[1], it) for it in expressions()]
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(compare, tasks))
    for expression, _, _, _, wrong in results:
        for name, seconds, what in wrong[:6]:
            print(f"{expression}: {what}: {datetime.fromtimestamp(seconds, ZoneInfo(name))} {name}")
    whole, agreed, passed_over = (sum(it[column] for it in results) for column in (1, 2, 3))
    wrong = sum(len(it[4]) for it in results)
    print(
        f"{len(results)} expressions in {len(ZONES)} time zones, {whole} of them over all ten years: "
        f"{agreed} fire times agree, {passed_over} are passed over by croniter against its own word, "
        f"{wrong} differ"
    )
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
