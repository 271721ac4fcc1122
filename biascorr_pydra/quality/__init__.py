"""Did it help, and is it to be kept: metrics before and after, and the do-no-harm gate on every correction."""

from .gate import (
    ACCEPTED,
    GATE_VERSION,
    LIMITS,
    NEGLIGIBLE,
    NOT_JUDGED,
    REJECTED,
    Verdict,
    decide,
    judge,
    not_judged,
)
from .measurement import measure, measure_file
from .numbers import field_numbers

__all__ = [
    "ACCEPTED",
    "GATE_VERSION",
    "LIMITS",
    "NEGLIGIBLE",
    "NOT_JUDGED",
    "REJECTED",
    "Verdict",
    "decide",
    "field_numbers",
    "judge",
    "measure",
    "measure_file",
    "not_judged",
]
