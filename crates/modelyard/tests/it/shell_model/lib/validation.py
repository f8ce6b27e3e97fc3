"""Checks of the data that a model is trained on."""

from lib import fail, say
from lib.preprocessing import FEATURES, TARGET


def check(rows, min_samples):
    """Ends the script when the rows cannot be trained on."""
    if len(rows) < min_samples:
        fail(f"Insufficient training data: {len(rows)} < {min_samples}")
    missing = [name for name in [*FEATURES, TARGET] if name not in rows[0]]
    if missing:
        fail(f"Missing columns: {missing}")
    say(f"Validation passed: {len(rows)} samples with all required columns")
