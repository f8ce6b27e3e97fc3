"""Draws each forecast from the past: python3 predict.py MODEL FUTURE_CSV CONFIG_YML OUTPUT_CSV."""

import csv
import json
import random
import sys


def option(config_file, name, default):
    """A top-level number in config.yml; a YAML library reads more than that."""
    with open(config_file, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return int(value)
    return default


def main(model_file, future_file, config_file, output_file):
    with open(model_file, encoding="utf-8") as file:
        seen = json.load(file)
    everywhere = [cases for location in seen.values() for cases in location]
    samples = option(config_file, "n_samples", 100)
    draw = random.Random(0)

    with open(future_file, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(output_file, "w", newline="", encoding="utf-8") as file:
        output = csv.writer(file)
        names = [f"sample_{number}" for number in range(samples)]
        output.writerow(["time_period", "location", *names])
        for row in rows:
            past = seen.get(row["location"], everywhere)
            output.writerow([row["time_period"], row["location"], *draw.choices(past, k=samples)])
    print(f"predicted {len(rows)} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
