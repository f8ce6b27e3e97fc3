"""Forecasts the cases of a future table with a saved model."""

import argparse
import sys

import model
from options import read_options
from tables import InputError, read_table, write_samples


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model")
    arguments.add_argument("historic_data")
    arguments.add_argument("future_data")
    arguments.add_argument("out_file")
    arguments.add_argument("config", nargs="?", default="")
    given = arguments.parse_args()

    options = read_options(given.config)
    trained = model.load(given.model)
    historic = read_table(given.historic_data, list(trained.spreads))
    future = read_table(given.future_data, list(trained.spreads))
    samples = model.predict(trained, historic, future, options)
    write_samples(given.out_file, future.rows, samples, options.n_samples)
    print(f"forecast {len(future.rows)} rows with {options.n_samples} samples each")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"predict: {error}")
