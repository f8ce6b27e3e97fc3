"""Learns what each location has seen: python3 train.py DATA_CSV MODEL."""

import csv
import json
import sys

TARGET = "disease_cases"


def main(data_file, model_file):
    seen = {}
    with open(data_file, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cases = row.get(TARGET)
            if cases:
                seen.setdefault(row["location"], []).append(float(cases))
    if not seen:
        sys.exit(f"the training data has no row with {TARGET}")
    with open(model_file, "w", encoding="utf-8") as file:
        json.dump(seen, file)
    print(f"trained on {sum(map(len, seen.values()))} rows of {len(seen)} locations")


if __name__ == "__main__":
    main(*sys.argv[1:])
