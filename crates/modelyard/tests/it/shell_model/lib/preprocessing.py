"""Tables as lists of dictionaries, and the features that are made of their columns."""

import csv

FEATURES = ["rainfall", "mean_temperature", "humidity"]
TARGET = "disease_cases"


def read_table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
        ]


def write_table(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def add_interactions(rows):
    """Adds the products of temperature with rain and with humidity, where both are there."""
    for row in rows:
        for other in ("rainfall", "humidity"):
            if other in row and "mean_temperature" in row:
                product = row["mean_temperature"] * row[other]
                row[f"temp_{other}_interaction"] = product
    return rows


def all_features():
    return [*FEATURES, "temp_rainfall_interaction", "temp_humidity_interaction"]
