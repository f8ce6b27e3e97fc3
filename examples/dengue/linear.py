"""Ridge regression in plain Python: enough linear algebra for a few dozen coefficients."""

from __future__ import annotations

import math
from operator import mul
from typing import Iterable, Sequence

TINY = 1e-9
"""Added to every penalty, so that columns that repeat each other can still be solved for."""


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(map(mul, left, right))


def mean(values: Iterable[float]) -> float:
    """The average, 0 of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def fit_ridge(
    rows: Sequence[Sequence[float]], targets: Sequence[float], penalties: Sequence[float]
) -> list[float]:
    """The coefficients that minimise squared errors + Σ penalty · coefficient².

    With columns of mean square one, a penalty counts like that many rows that say zero.
    Linear in the number of rows, which are read once for each pair of columns.
    """
    columns = list(zip(*rows))
    normal = [[dot(left, right) for right in columns[: at + 1]] for at, left in enumerate(columns)]
    for at, penalty in enumerate(penalties):
        normal[at][at] += penalty + TINY
    return solve(normal, [dot(column, targets) for column in columns])


def solve(matrix: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """Solves `matrix · x = target` for a positive definite matrix, of which only the lower triangle
    is read, by Cholesky decomposition."""
    size = len(target)
    lower = [[0.0] * size for _ in range(size)]
    for row in range(size):
        for column in range(row + 1):
            rest = matrix[row][column] - dot(lower[row][:column], lower[column][:column])
            # Rounding can push a pivot below zero when columns all but repeat each other.
            lower[row][column] = math.sqrt(max(rest, TINY)) if row == column else rest / lower[column][column]

    halfway: list[float] = []
    for row in range(size):
        halfway.append((target[row] - dot(lower[row], halfway)) / lower[row][row])
    solution = [0.0] * size
    for row in reversed(range(size)):
        below = sum(lower[later][row] * solution[later] for later in range(row + 1, size))
        solution[row] = (halfway[row] - below) / lower[row][row]
    return solution
