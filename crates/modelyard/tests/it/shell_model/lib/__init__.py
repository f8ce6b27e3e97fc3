"""What both scripts need: the configuration, and where messages go."""

import ast
import sys


def read_config(path):
    """Reads the flat YAML that the service writes: scalars, and lists in brackets."""
    config = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.strip().partition(": ")
            try:
                config[key] = ast.literal_eval(value)
            except (SyntaxError, ValueError):
                config[key] = value
    return dict(sorted(config.items()))


def say(message):
    print(message, file=sys.stderr)


def fail(message):
    say(f"ERROR: {message}")
    sys.exit(1)
