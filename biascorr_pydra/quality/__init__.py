"""Did it help, and is it to be kept: metrics before and after, and the do-no-harm gate on every correction."""

from ._gate import ACCEPTED, GATE_VERSION, LIMITS, NEGLIGIBLE, NOT_JUDGED, REJECTED, Verdict, decide, judge, not_judged
from ._measure import measure
from ._numbers import field_numbers
from ._signs import Signs, metadata_beside, signs_of_correction

__all__ = [
    "ACCEPTED",
    "GATE_VERSION",
    "LIMITS",
    "NEGLIGIBLE",
    "NOT_JUDGED",
    "REJECTED",
    "Signs",
    "Verdict",
    "decide",
    "field_numbers",
    "judge",
    "measure",
    "metadata_beside",
    "not_judged",
    "signs_of_correction",
]
