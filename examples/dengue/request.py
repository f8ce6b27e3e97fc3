"""Prints the body of a request made of the example data, for `curl --data @-`.

    python3 request.py train CONFIG_ID
    python3 request.py predict ARTIFACT_ID
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Union

DATA = Path(__file__).parent / "data"


def value(text: str) -> Union[None, int, float, str]:
    """A cell as JSON has it: null when empty, a number when it reads as one."""
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def frame(name: str) -> dict:
    """A table of the data folder as the service takes it."""
    with (DATA / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    return {"columns": columns, "data": [[value(cell) for cell in row] for row in rows]}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("operation", choices=["train", "predict"])
    arguments.add_argument("id", help="of the config to train with, or of the trained model's artifact")
    given = arguments.parse_args()
    if given.operation == "train":
        body = {"config_id": given.id, "data": frame("training")}
    else:
        body = {"artifact_id": given.id, "historic": frame("historic"), "future": frame("future")}
    json.dump(body, sys.stdout)


if __name__ == "__main__":
    main()
