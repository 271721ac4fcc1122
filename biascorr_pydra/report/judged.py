"""What the judge said of one scan: numbers of each image, and verdicts of every two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biascorr_pydra.judge import ACQUIRED, CANNOT_TELL, RANKED_BY, SAME
from biascorr_pydra.metrics import METRICS
from biascorr_pydra.statistics import verdicts
from biascorr_pydra.statistics.verdicts import Interval, scan_verdict

from .words import percent

__all__ = ["JudgedScan", "PairOfImages", "back", "mapping_in"]


@dataclass(frozen=True)
class PairOfImages:
    """Two images of one scan.

    Attributes
    ----------
    word : what the second is against the first, one of :data:`biascorr_pydra.statistics.verdicts.WORDS`
    changes : number -> change in percent from the first to the second with a 95% interval; empty where they are one
    """

    word: str
    changes: Mapping[str, Interval] = field(default_factory=dict)

    def in_words(self) -> str:
        """The word with the changes and their intervals."""
        changes = [
            f"{METRICS[key].label.lower()} {percent(change)} ({percent(low)} to {percent(high)})"
            for key, (change, low, high) in self.changes.items()
            if key in METRICS
        ]
        return f"{self.word}: {', '.join(changes)}" if changes else self.word


@dataclass
class JudgedScan:
    """What the judge says of a scan; of one that it did not judge, why.

    Attributes
    ----------
    reason : why nothing was judged, or None
    record : the judge's record; empty where there is none that holds
    dseg : the judge's tissue, or None
    """

    reason: str | None = None
    record: dict[str, Any] = field(default_factory=dict)
    dseg: Path | None = None

    def image_of(self, method: str) -> str | None:
        """Under which name the judge has what a method delivered; None where it has not."""
        if method in mapping_in(self.record, "left_out"):
            return ACQUIRED
        return method if method in mapping_in(self.record, "images") else None

    def left_out(self, method: str) -> str | None:
        """Why a method's image took no part, as text; None where it did."""
        reasons = {**mapping_in(self.record, "not_compared"), **mapping_in(self.record, "left_out")}
        return str(reasons[method]) if method in reasons else None

    def reason_against(self, method: str) -> str:
        """Why there is no verdict on a method's image."""
        known = self.reason or self.left_out(method) or self.left_out(ACQUIRED)
        return known or "the judge's record has no verdict on it that this version knows"

    def numbers(self, method: str) -> Mapping[str, Any]:
        """Metrics of the acquired image (``ACQUIRED``) or of what a method delivered; empty where there are none."""
        name = self.image_of(method)
        return mapping_in(mapping_in(self.record, "images"), name) if self.reason is None and name else {}

    def compare(self, first: str, second: str) -> PairOfImages | None:
        """The second method, or ``ACQUIRED``, against the first; None where they were not judged."""
        names = self.image_of(first), self.image_of(second)
        if self.reason is not None or None in names:
            return None
        if names[0] == names[1]:
            return PairOfImages(verdicts.SAME)
        pairs = self.record.get("pairs")
        for pair in pairs if isinstance(pairs, list) else ():
            if not isinstance(pair, Mapping):
                continue
            known = pair.get("first"), pair.get("second")
            if known in (names, names[::-1]):
                return _pair(pair, str(names[0]), str(names[1]), turned=known != names)
        return None


def mapping_in(content: Mapping[str, Any], key: str | None) -> Mapping[str, Any]:
    """A mapping inside of another; empty where it is not one."""
    value = content.get(key) if key else None
    return value if isinstance(value, Mapping) else {}


def _pair(pair: Mapping[str, Any], first: str, second: str, *, turned: bool) -> PairOfImages | None:
    """The second image against the first; None where the record names neither of them, nor that they are alike."""
    changes = {}
    for key in RANKED_BY:
        numbers = mapping_in(pair, "changes").get(key)
        if isinstance(numbers, list | tuple) and len(numbers) == 3 and all(map(_is_number, numbers)):
            change, low, high = map(float, numbers)
            changes[key] = (back(change), back(high), back(low)) if turned else (change, low, high)
    words = {CANNOT_TELL: verdicts.CANNOT_TELL, SAME: verdicts.SAME, first: verdicts.WORSE, second: verdicts.BETTER}
    word = words.get(str(pair.get("verdict")))
    return None if word is None else PairOfImages(scan_verdict(word, changes.values()), changes)


def back(percent: float) -> float:
    """The change in percent the other way round."""
    return 100 * (100 / (100 + percent) - 1) if percent > -100 else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
