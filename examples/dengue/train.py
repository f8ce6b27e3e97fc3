"""Trains the model on a table of cases and climate, and saves it."""

import argparse
import sys

import model
from options import read_options
from tables import InputError, read_table


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("train_data")
    arguments.add_argument("model")
    arguments.add_argument("config", nargs="?", default="")
    given = arguments.parse_args()

    options = read_options(given.config)
    trained = model.train(read_table(given.train_data, options.covariates), options)
    model.save(trained, given.model)

    counts = sum(len(place.residuals) for place in trained.places.values())
    print(f"learned from {counts} {trained.calendar.name} case counts of {len(trained.places)} places")
    print(f"climate used: {', '.join(trained.spreads) or 'none'}")
    for name in options.covariates:
        if name not in trained.spreads:
            print(f"left out: `{name}` is absent or never changes")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"train: {error}")
