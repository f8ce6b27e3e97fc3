"""What the caller can set, read from config.yml.

The server writes plain block YAML, so a small reader does and the model needs no package:
mappings, lists and scalars, one to a line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tables import InputError

CLIMATE = ("rainfall", "mean_temperature")


@dataclass(frozen=True)
class Options:
    """The user options of MLproject, with the same defaults."""

    n_samples: int = 100
    n_lags: int = 3
    ridge: float = 10.0
    seed: int = 1
    additional: tuple[str, ...] = ()

    @property
    def covariates(self) -> tuple[str, ...]:
        """All covariates to learn from, each once."""
        return tuple(dict.fromkeys(CLIMATE + self.additional))


def read_options(path: str) -> Options:
    """Options from a config file, where they lie under `user_option_values` or at the top level."""
    if not path:
        return Options()
    with open(path, encoding="utf-8-sig") as file:
        config = read_yaml(file.read())
    values = dict(config)
    nested = config.get("user_option_values")
    # A client may itself send a mapping of that name, which then lies one level further in.
    while isinstance(nested, dict):
        values.update(nested)
        nested = nested.get("user_option_values")

    def number(name: str, kind: type, low: float, high: float) -> Any:
        value = values.get(name)
        if value is None:
            return getattr(Options, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"option `{name}` is `{value}`; expected a number")
        if not low <= value <= high:
            raise InputError(f"option `{name}` is {value}; expected {low} to {high}")
        if kind(value) != value:
            raise InputError(f"option `{name}` is {value}; expected a whole number")
        return kind(value)

    additional = values.get("additional_continuous_covariates") or []
    if not isinstance(additional, list):
        raise InputError("`additional_continuous_covariates` is not a list of column names")
    return Options(
        n_samples=number("n_samples", int, 1, 10_000),
        n_lags=number("n_lags", int, 0, 12),
        ridge=number("ridge", float, 0, 1e6),
        seed=number("seed", int, 0, 2**32 - 1),
        additional=tuple(str(name) for name in additional),
    )


def read_yaml(text: str) -> dict[str, Any]:
    """Reads a block-style YAML mapping, or JSON. Lines in any other style are passed over."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InputError(f"the config is neither YAML nor JSON: {error}") from None
    lines = []
    for line in text.splitlines():
        content = line.strip()
        if content and not content.startswith("#") and content not in ("---", "..."):
            lines.append((len(line) - len(line.lstrip()), content))
    value, _ = read_block(lines, 0)
    return value if isinstance(value, dict) else {}


def read_block(lines: list[tuple[int, str]], start: int) -> tuple[Any, int]:
    """The mapping or list that begins at line `start`, and the number of the line after it."""
    if start == len(lines):
        return None, start
    indent, at = lines[start][0], start
    if lines[start][1].startswith("-"):
        items = []
        while at < len(lines) and lines[at][0] == indent and lines[at][1].startswith("-"):
            items.append(read_scalar(lines[at][1][1:]))
            at += 1
        return items, at
    mapping: dict[str, Any] = {}
    while at < len(lines) and lines[at][0] >= indent:
        depth, content = lines[at]
        at += 1
        key, colon, rest = content.partition(":")
        if depth > indent or not colon:
            continue
        key = str(read_scalar(key))
        if without_comment(rest):
            mapping[key] = read_scalar(rest)
        elif at < len(lines) and belongs_below(lines[at], indent):
            mapping[key], at = read_block(lines, at)
        else:
            mapping[key] = None
    return mapping, at


def belongs_below(line: tuple[int, str], indent: int) -> bool:
    """Whether a line is part of the value of a key at `indent`. A list may stand as far left as its
    key does."""
    return line[0] > indent or (line[0] == indent and line[1].startswith("-"))


def without_comment(text: str) -> str:
    """The text before ` #`, trimmed."""
    return (" " + text).split(" #")[0].strip()


def read_scalar(text: str) -> Any:
    """A quoted or plain string, number, truth value, null, `[a, b]` or `{}`."""
    text = text.strip()
    if text[:1] in ("'", '"') and (end := text.rfind(text[0])) > 0:
        return text[1:end].replace("''", "'") if text[0] == "'" else text[1:end].replace('\\"', '"')
    text = without_comment(text)
    if text.startswith("[") and text.endswith("]"):
        return [read_scalar(item) for item in text[1:-1].split(",") if item.strip()]
    if text == "{}":
        return {}
    if text.lower() in ("", "~", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
