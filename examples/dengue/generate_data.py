"""Writes the example data: python3 generate_data.py

The data is synthetic. Places, people, weather and cases are made up; only the shape of the climate,
one warm monsoon a year, follows the lowlands of Laos. The epidemic is simulated step by step and not
drawn from the regression in `model.py`, which therefore has something to get wrong.
"""

import csv
import math
import random
from pathlib import Path

SEED = 20_240_501
FIRST_YEAR = 2015
TRAINING_YEARS = 8
HISTORIC_MONTHS, MONTHS_SINCE_TRAINING, FUTURE_MONTHS = 24, 3, 3

# Name, people in the first year, yearly growth, degrees and share of rain against the average.
PLACES = [
    ("Ban Thong", 410_000, 0.018, 0.4, 0.95),
    ("Dok Champa", 268_000, 0.012, -0.3, 1.10),
    ("Houay Deng", 122_000, 0.009, -2.1, 0.85),
    ("Nam Sai", 187_000, 0.015, 0.0, 1.00),
    ("Phou Kham", 74_000, 0.006, -2.8, 1.20),
    ("Sene Souk", 336_000, 0.021, 0.7, 0.90),
]
TEMPERATURE = [21.8, 23.9, 26.6, 28.4, 28.1, 27.8, 27.3, 27.0, 26.9, 26.1, 24.2, 21.9]
RAINFALL = [6, 14, 38, 88, 214, 258, 302, 338, 246, 92, 18, 5]
REPRODUCTION = 4.4
UNREPORTED = 0.015


def bump(value: float, best: float, width: float) -> float:
    """1 at the best value, falling to either side."""
    return math.exp(-(((value - best) / width) ** 2))


def count(chance: random.Random, expected: float, dispersion: float) -> int:
    """A negative binomial count: Poisson with a gamma distributed rate."""
    rate = chance.gammavariate(dispersion, expected / dispersion)
    if rate > 200:
        return max(0, round(chance.gauss(rate, math.sqrt(rate))))
    threshold, drawn, product = math.exp(-rate), 0, chance.random()
    while product > threshold:
        drawn += 1
        product *= chance.random()
    return drawn


def simulate(months: int) -> dict[str, list[dict]]:
    """By place, one row for each month from January of the first year on."""
    chance = random.Random(SEED)
    # Warm and dry years, as El Niño brings them, come to all places together.
    ocean, oceans = 0.0, []
    for _ in range(months):
        ocean = 0.93 * ocean + chance.gauss(0, 0.3)
        oceans.append(ocean)

    places = {}
    for name, people, growth, warmer, wetter in PLACES:
        susceptible, infectious = 0.55, 6e-6 * people
        temperatures, rains, rows = [], [], []
        for month in range(months):
            year, season = divmod(month, 12)
            population = round(people * (1 + growth) ** year)
            temperatures.append(TEMPERATURE[season] + warmer + 0.35 * oceans[month] + chance.gauss(0, 0.55))
            wetness = math.exp(-0.12 * oceans[month] + chance.gauss(0, 0.28))
            rains.append(RAINFALL[season] * wetter * wetness)

            # Mosquitoes need warmth and standing water in the month before.
            before = max(0, month - 1)
            warm = 0.2 + 0.8 * bump(temperatures[before], best=28.8, width=2.5)
            wet = 0.2 + 0.8 * (1 - math.exp(-rains[before] / 110))
            expected = REPRODUCTION * warm * wet * susceptible * infectious + 8e-6 * population
            cases = count(chance, expected, dispersion=8.0)
            # One case in fourteen is reported, and immunity fades as children are born.
            susceptible = min(0.65, max(0.35, susceptible - 14 * cases / population + 0.004))
            infectious = 0.3 * infectious + 0.7 * cases
            rows.append(
                {
                    "time_period": f"{FIRST_YEAR + year}-{season + 1:02}",
                    "location": name,
                    "disease_cases": "" if chance.random() < UNREPORTED else cases,
                    "population": population,
                    "rainfall": f"{rains[-1]:.1f}",
                    "mean_temperature": f"{temperatures[-1]:.2f}",
                }
            )
        places[name] = rows
    return places


def write(path: Path, places: dict[str, list[dict]], first: int, last: int, leave_out: str = "") -> None:
    """The months from `first` up to `last`, place by place."""
    rows = [row for months in places.values() for row in months[first:last]]
    columns = [column for column in rows[0] if column != leave_out]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    training = 12 * TRAINING_YEARS
    today = training + MONTHS_SINCE_TRAINING
    places = simulate(today + FUTURE_MONTHS)
    write(folder / "training.csv", places, 0, training)
    write(folder / "historic.csv", places, today - HISTORIC_MONTHS, today)
    write(folder / "future.csv", places, today, today + FUTURE_MONTHS, leave_out="disease_cases")


if __name__ == "__main__":
    main(Path(__file__).parent / "data")
