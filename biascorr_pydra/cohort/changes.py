"""What a run would make again because its settings are others, and which ones changed, in words.

The settings of a result stand in its record, under "work"; results of earlier versions do not have them there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .correction import CorrectionPlan
from .plan import work_of

__all__ = ["replaced"]

#: What the settings are called where that is no option of the run.
NAMES = {
    "package": "version of biascorr_pydra",
    "source": "the scan itself",
    "given": "the masks or segmentations that are given",
    "suffix": "the contrast",
    "warnings": "what the scan's sidecar warns of",
    "metadata": "the scan's metadata",
    "software": "version of antspyx or deepbet",
    "segmenter": "weights of the segmentation",
    "tissue": "the image on which tissues are segmented",
}
OPTIONS = ("skull_strip", "segmentation", "method", "seed", "gate", "fallback")
CONTENTS = ("source", "given", "warnings", "metadata", "segmenter")  # of which the values say nothing to a reader
MOST_CHARACTERS = 60


def replaced(plan: CorrectionPlan) -> list[str]:
    """The results that are there, whole, but of other settings: a sentence for each method and kind of change.

    Results that are made again for no such reason (``rerun``) are not counted.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for job, labels in plan.pending:
        for label in labels:
            work = work_of(plan.out_dir / plan.record_file(job, label), plan.out_dir / label)
            if work and work["key"] != plan.keys[job.relative, label]:
                counts[label, "; ".join(_changes(work.get("settings"), plan.works[job.relative, label]))] += 1
    return [
        f"{label}: {count} {'scan was' if count == 1 else 'scans were'} done with other settings and will be made "
        f"again ({reason}). What is there stays until it is replaced."
        for (label, reason), count in counts.items()
    ]


def _changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    if not isinstance(before, Mapping):
        return ["which ones is not recorded: an earlier version made it"]
    now = json.loads(json.dumps(now))  # as it would be read from a record
    changes = [text for key in dict.fromkeys([*now, *before]) for text in _change(key, before.get(key), now.get(key))]
    return changes or ["none that is recorded"]


def _change(key: str, before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    if key == "implementation":
        yield from _implementation(str(before), str(now))
    elif key in CONTENTS:
        yield f"{NAMES[key]} changed"
    else:
        name = f"--{key.replace('_', '-')}" if key in OPTIONS else NAMES.get(key, key.replace("_", " "))
        yield f"{name} was {_short(before)}, is {_short(now)}"


def _implementation(before: str, now: str) -> Iterator[str]:
    """Version, weights and gate of a method, and its parameters: "0.1.0 n4 7 no weights, gate 3 {...}"."""
    (parts_before, parameters_before), (parts_now, parameters_now) = _parsed(before), _parsed(now)
    if parts_before != parts_now:
        kept = set(parts_before) & set(parts_now)
        was, is_now = (
            ", ".join(part for part in parts if part not in kept) or "none" for parts in (parts_before, parts_now)
        )
        yield f"version or weights: was {was}, is {is_now}"
    for name in dict.fromkeys([*parameters_now, *parameters_before]):
        old, new = parameters_before.get(name), parameters_now.get(name)
        if old != new:
            yield f"{name} was {_short(old)}, is {_short(new)}"


def _parsed(text: str) -> tuple[list[str], dict[str, Any]]:
    head, brace, rest = text.partition(" {")
    try:
        parameters = json.loads(brace.strip() + rest) if brace else {}
    except ValueError:
        head, parameters = text, {}
    return head.partition(" ")[2].split(", "), parameters  # the package's version is a setting of its own


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
