"""Shift records made from a few facts and no model."""

from vtab_peft.benchmark.storage.shifts import SCHEMA, Outcome, Shift, WiseFt

TESTS = [
    Outcome("clean", 0, "a0", 10, 9),
    Outcome("jpeg", 1, "a1", 10, 8),
    Outcome("jpeg", 5, "a2", 10, 4),
    Outcome("contrast", 3, "a3", 10, 3),
    Outcome("sketch", 0, "a4", 4, 1),
]


def make_shift(run_id: str, predictions_sha256: str) -> Shift:
    """Return a record with two corruptions, a further list and WiSE-FT."""
    wise = WiseFt(0.7, run_id, [(0.0, 0.1), (0.7, 0.5)], TESTS)
    return Shift(SCHEMA, run_id, predictions_sha256, TESTS, {"device": "cpu"}, wise)
