"""What a scan's page says: verdicts, metrics with the cohort's range, notes and facts, as the template takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from biascorr_pydra.metrics import METRICS, shown_metrics
from biascorr_pydra.quality import ACCEPTED, NEGLIGIBLE, NOT_JUDGED, REJECTED
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.table import (
    STEPS,
    Change,
    direction,
    hint,
    image_keys,
    keys,
    long_name,
    own_keys,
)
from biascorr_pydra.report.words import NONE, STEP_NAMES, number, percent, seconds
from biascorr_pydra.statistics.verdicts import BETTER, SAME, WORSE

from .ranges import Place

__all__ = ["UNREACHED", "method_parts", "metric_rows", "notes"]

FAILED, UNKNOWN = "failed", "no record"
#: States of what a run has not made, in words.
UNREACHED = {"waiting": "No run has reached it yet.", "skipped": "It is not an image to correct."}

#: What became of the image, in words, by verdict.
OUTCOMES = {
    ACCEPTED: "The field was accepted and divided out.",
    NEGLIGIBLE: "There is no field to speak of; the image was passed on unchanged.",
    NOT_JUDGED: "The field was divided out without being judged.",
    **UNREACHED,
    UNKNOWN: "No metrics file says what became of this scan.",
}
#: The gate's numbers, as people read them.
CHECKS = {
    "field_range": "field range, P99 / P1",
    "gradient_per_mm": "steepest change of the log field per mm",
    "curvature": "roughness of the log field over 16 mm",
    "sharpening": "sharpening of the histogram (nats)",
    "support": "support of the field by the image",
    "contrast_change": "change of contrast",
    "field_sd": "strength: standard deviation of the log field",
    "response": "response to a known extra field",
    "flip_disagreement": "disagreement with the fields of mirror images",
}


# --- ranges


Places = Mapping[str, Mapping[str, Mapping[str, Place]]]  # by method, part and metric


def _strip(place: Place | None, value: float | None, way: str) -> dict[str, Any] | None:
    """Positions, in percent, of a small box plot with this scan's value in it."""
    if place is None or value is None or place.high <= place.low:
        return None
    if place.quartile1 is None or place.quartile3 is None:  # fewer than four scans
        return None
    positions = {
        "quartile1": place.quartile1,
        "median": place.median,
        "quartile3": place.quartile3,
        "value": value,
    }
    scaled = {key: round(100 * (at - place.low) / (place.high - place.low), 1) for key, at in positions.items()}
    span = f"{number(place.low)} to {number(place.high)}"
    quarter = f"{number(place.quartile1)} to {number(place.quartile3)}"
    of_site = "" if place.among == "cohort" else f" of {place.among}"
    middle = f"median {number(place.median)}, quartiles {quarter}"
    text = f"{place.n} scans{of_site}: {middle}, range {span}; {place.words(way)}"
    return scaled | {"text": text}


def _range_words(place: Place | None, way: str) -> str:
    """The median and the quartiles of the scan's site, or of the cohort, and where this scan is."""
    if place is None:
        return ""
    if place.quartile1 is None:
        return f"{place.n} {'scan' if place.n == 1 else 'scans'} only; no range"
    quarter = f"{number(place.quartile1)}–{number(place.quartile3)}"
    return f"{place.among} {number(place.median)} ({quarter}); {place.words(way)}"


# --- the verdicts


@dataclass
class MethodPart:
    """What the summary says of one method."""

    name: str
    verdict: str
    outcome: str
    reasons: str
    judge: dict[str, str] = field(default_factory=dict)
    next_steps: list[str] = field(default_factory=list)
    headline: list[dict[str, str]] = field(default_factory=list)
    checks: list[dict[str, str]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    identity: list[tuple[str, str]] = field(default_factory=list)


def method_parts(results: Sequence[Result]) -> list[MethodPart]:
    """A part for each method, failed ones included."""
    return [_method_part(result) for result in results]


def _method_part(result: Result) -> MethodPart:
    if result.failed:
        return MethodPart(result.method, FAILED, "The correction failed; there is no corrected image.", result.reason)
    verdict = result.verdict if isinstance(result.verdict, str) else UNKNOWN
    if not result.record and result.state in UNREACHED:
        verdict = result.state
    reasons = result.verdict_reason or (result.reason if verdict == UNKNOWN and result.reason != NONE else "")
    part = MethodPart(result.method, verdict, _outcome(result, verdict), reasons)
    changes = [(key, Change.of(result, key)) for key, metric in METRICS.items() if metric.headline]
    part.headline = [{"name": long_name(key), **cell(change)} for key, change in changes if change.percent is not None]
    part.judge = judge_verdict(result)
    steps = result.part("gate").get("next_steps")
    part.next_steps = [str(step) for step in steps] if isinstance(steps, list) else []
    part.checks = list(_checks(result))
    part.identity = _identity(result)
    part.facts = facts(result)
    return part


def judge_verdict(result: Result) -> dict[str, str]:
    """What the judge says of the delivered image against the acquired one; only better and worse have a color."""
    pair = result.against_acquired
    if pair is None:
        return {"text": f"not judged: {result.judged.reason_against(result.method)}", "color": ""}
    reason = result.judged.left_out(result.method)
    text = f"{pair.word}: {reason}" if reason else pair.in_words()
    return {"text": text, "color": pair.word if pair.word in (BETTER, WORSE) else ""}


def judge_pairs(results: Sequence[Result]) -> list[str]:
    """What the judge says of every two methods, as sentences."""
    texts = []
    for first, second in combinations([result for result in results if result.record], 2):
        pair = second.judged.compare(first.method, second.method)
        if pair is not None and pair.word != SAME:
            texts.append(f"{second.method} against {first.method}: {pair.in_words()}.")
    return texts


def _outcome(result: Result, verdict: str) -> str:
    if verdict == REJECTED:
        applied = result.part("gate").get("applied")
        if applied in (None, "none"):
            return "The field was rejected; the image was passed on unchanged."
        return f"The field was rejected; the image was corrected by {applied} instead."
    return OUTCOMES.get(verdict, f"The metrics file says: {verdict}.")


def _checks(result: Result) -> Iterator[dict[str, str]]:
    """The gate's numbers, each with its limit and whether it was kept."""
    checks = result.part("gate").get("checks")
    for key, check in checks.items() if isinstance(checks, Mapping) else ():
        if not isinstance(check, Mapping):
            continue
        limits = [f"at {way} {check[way]}" for way in ("least", "most") if way in check]
        limits += [f"{way} {check[way]}" for way in check if str(way).endswith(" below")]
        passed = {True: "kept", False: "not kept"}.get(check.get("passed", NONE), NONE)
        yield {
            "name": CHECKS.get(key, str(key)),
            "key": str(key),
            "value": str(check.get("value", NONE)),
            "limit": "; ".join(limits),
            "passed": passed,
        }


def _identity(result: Result) -> list[tuple[str, str]]:
    """Method, version, preset and weights: what one asks first."""
    about = result.sidecar.get("Method")
    about = about if isinstance(about, Mapping) else {}
    parameters = about.get("Parameters")
    chosen = parameters.get("weights_file") if isinstance(parameters, Mapping) else None
    weights = about.get("WeightsSHA256")
    named = [
        ("Method", about.get("Name") or result.record.get("method") or result.method),
        ("Version", about.get("Version") or result.record.get("method_version")),
        ("Preset", about.get("Preset") or result.record.get("preset")),
        ("Weights", (chosen or f"the packaged ones of {about.get('Name')}") if weights else None),
        ("SHA-256 of the weights", weights),
        ("Brain mask", result.sidecar.get("MaskMethod") or result.record.get("skull_strip")),
        ("Device", about.get("Device")),
    ]
    return [(name, str(value)) for name, value in named if value not in (None, "")]


# --- tables


def metric_rows(results: Sequence[Result], places: Places) -> dict[str, list[dict[str, Any]]]:
    """Rows of the tables: "image" (judge's tissue), "own" (own segmentation), "field" and "times"; cells by result."""
    recorded = [result for result in results if result.record]
    # A metric that no method has, with a reason, is named with that reason instead of a row of n/a.
    known = [key for key in image_keys(recorded) if not all(_explained(result, key) for result in recorded)]
    return {
        "image": [_image_row(results, key, places) for key in known] if recorded else [],
        "own": [_own_row(results, key) for key in own_keys(recorded) if METRICS.get(key) and METRICS[key].headline],
        "field": [_field_row(results, key, places) for key in keys(recorded, "field", shown_metrics("field"))]
        if recorded
        else [],
        "times": [
            {
                "name": f"Run time, {STEP_NAMES.get(step, step)}",
                "cells": [seconds(result.number("runtime_s", step)) for result in results],
            }
            for step in keys(recorded, "runtime_s", STEPS)
            if any(result.number("runtime_s", step) is not None for result in recorded)
        ],
    }


def _image_row(results: Sequence[Result], key: str, places: Places) -> dict[str, Any]:
    changes = [Change.of(result, key) for result in results]
    befores = [change.before for change in changes if change.before is not None]
    first = next((result for result in results if result.number("before", key) is not None), None)
    place = places.get(first.method, {}).get("before", {}).get(key) if first else None
    return {
        "name": long_name(key),
        "better": hint(key),
        "before": " / ".join(dict.fromkeys(number(value) for value in befores)) or NONE,
        "range": _range_words(place, direction(key)),
        "cells": [
            cell(change) | _placed(places.get(result.method, {}).get("after", {}).get(key), change.after, key)
            for result, change in zip(results, changes, strict=True)
        ],
        "shown": key in shown_metrics("image"),
    }


def _own_row(results: Sequence[Result], key: str) -> dict[str, Any]:
    """Values on the tissue of each method's own segmentation, before and after: for users of that method alone."""
    pairs = [(result.number("own_before", key), result.number("own_after", key)) for result in results]
    return {
        "name": f"{long_name(key)}, own segmentation",
        "cells": [f"{number(before)} → {number(after)}" if after is not None else NONE for before, after in pairs],
    }


def _field_row(results: Sequence[Result], key: str, places: Places) -> dict[str, Any]:
    values = [result.number("field", key) for result in results]
    return {
        "name": long_name(key),
        "cells": [
            {"after": number(value)} | _placed(places.get(result.method, {}).get("field", {}).get(key), value, key)
            for result, value in zip(results, values, strict=True)
        ],
    }


def _placed(place: Place | None, value: float | None, key: str) -> dict[str, Any]:
    way = direction(key)
    return {"range": _range_words(place, way), "strip": _strip(place, value, way)}


def _explained(result: Result, key: str) -> bool:
    return all(f"{part}.{key}" in result.part("undefined") for part in ("before", "after"))


def cell(change: Change) -> dict[str, str]:
    """One metric after correction and its change; whether that is good, the judge says, and no color of one metric."""
    if change.percent is None:
        return {"after": number(change.after), "before": number(change.before), "change": "", "word": ""}
    return {
        "after": number(change.after),
        "before": number(change.before),
        "change": percent(change.percent),
        "word": "unchanged" if change.way == "unchanged" else "",
    }


# --- notes, disagreements, facts


def segmentations(results: Iterable[Result]) -> list[str]:
    """By whom the tissues were segmented, and on what; more than one is a disagreement."""
    texts = []
    for result in results:
        part = result.part("segmentation")
        method, on = part.get("method"), part.get("image")
        texts.append((f"{method} ({on})" if on else str(method)) if method else _unsegmented(result))
    return list(dict.fromkeys(texts))


def _unsegmented(result: Result) -> str:
    reason = next((why for where, why in result.part("undefined").items() if where.startswith("own_before.")), None)
    return f"none, because {reason}" if reason else "none is recorded"


def notes(results: Sequence[Result]) -> list[str]:
    """Warnings, and why metrics are undefined; one that several methods share is said once."""
    results = [result for result in results if result.record]
    methods_by_text: dict[str, list[str]] = {}
    for result in results:
        for text in result.texts("warnings"):
            methods_by_text.setdefault(text, []).append(result.method)
        reasons: dict[str, dict[str, list[str]]] = {}
        for where, reason in result.part("undefined").items():
            part, _, key = str(where).partition(".")
            reasons.setdefault(str(reason), {}).setdefault(long_name(key), []).append(part)
        for reason, metrics in reasons.items():
            names = [name if len(parts) > 1 else f"{name} ({parts[0]})" for name, parts in metrics.items()]
            methods_by_text.setdefault(f"Undefined, because {reason}: {'; '.join(names)}.", []).append(result.method)
    everyone = len(results)
    return [text if len(by) == everyone else f"{', '.join(by)}: {text}" for text, by in methods_by_text.items()]


def facts(result: Result) -> list[tuple[str, str]]:
    """Parameters, what the estimate recorded, and software of one result, flattened; whatever the sidecar says."""
    names = ("Method", "FieldScaledOver", "Intensities", "FieldSummary", "EstimateRecord", "Software", "SourceSHA256")
    return list(_flat({key: result.sidecar[key] for key in names if key in result.sidecar}))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix} › {key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value))
        else:
            yield name, "none" if value is None else str(value)
