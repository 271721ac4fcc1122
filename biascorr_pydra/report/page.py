"""The page: a cohort's results as words, tables and pictures in one HTML file that loads nothing else.

All texts go through jinja2's escaping: names, error messages and metadata come from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from ..quality import NEGLIGIBLE, NOT_JUDGED, REJECTED
from .collect import Cohort, Problem, Result
from .sections import MethodSection, ScanSection, draw
from .table import (
    FIELD_METRICS,
    IMAGE_METRICS,
    STEPS,
    UNCHANGED_PERCENT,
    Change,
    Tally,
    hint,
    image_keys,
    keys,
    long_name,
    tally,
)

__all__ = ["render"]

NONE = "n/a"
SAME = 1e-6  # relative: the same computation on the same data
STEP_NAMES = {"skull_strip": "skull stripping", "correct": "correction"}


def render(cohort: Cohort) -> str:
    """The report of a cohort as HTML."""
    sections = [_section(number, scan, results) for number, (scan, results) in enumerate(_by_scan(cohort), start=1)]
    found = [problem for section in sections for problem in section.problems]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        name=cohort.name,
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        counts=_counts(cohort),
        summary=list(_summary(cohort)),
        unchanged=f"{UNCHANGED_PERCENT:g}%",
        failures=[result for result in cohort.results if result.failed],
        rejections=[result for result in cohort.results if result.verdict == REJECTED],
        untouched=[result for result in cohort.results if result.verdict == NEGLIGIBLE],
        anchors={section.scan: section.anchor for section in sections},
        problems=[*cohort.problems, *found],
        overview_keys=[(key, long_name(key), hint(key)) for key in IMAGE_METRICS],
        overview=[_overview_row(result) for result in cohort.results],
        sections=sections,
    )


def _by_scan(cohort: Cohort) -> Iterable[tuple[str, list[Result]]]:
    return cohort.by_scan().items()


# --- words first


def _counts(cohort: Cohort) -> dict[str, Any]:
    scans = cohort.by_scan()
    states = [result.state for result in cohort.results]
    return {
        "scans": len(scans),
        "subjects": len({result.subject for result in cohort.results}),
        "methods": cohort.methods,
        "jobs": len(states),
        "done": states.count("done"),
        "cached": states.count("cached"),
        "rejected": states.count("rejected"),
        "failed": states.count("failed"),
        "other": len(states) - sum(states.count(state) for state in ("done", "cached", "rejected", "failed")),
    }


def _summary(cohort: Cohort) -> Iterator[dict[str, Any]]:
    """One paragraph per method and contrast: contrasts are not mixed, their metrics are not comparable."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in cohort.results:
        groups.setdefault((result.suffix, result.method), []).append(result)
    for (suffix, method), results in sorted(groups.items()):
        corrected = [result for result in results if result.record]
        times = [t for result in corrected if (t := result.number("runtime_s", "correct")) is not None]
        yield {
            "title": f"{suffix}, {method}",
            "corrected": f"{len(corrected)} of {_plural(len(results), 'scan')} corrected.",
            "sentences": list(_sentences(corrected)) if corrected else [],
            "time": f"Correction took {seconds(median(times))}{' (median)' if len(times) > 1 else ''}."
            if times
            else "",
        }


def _sentences(results: list[Result]) -> Iterator[str]:
    undefined = []
    for key in IMAGE_METRICS:
        found = tally(results, key)
        if found.n:
            yield _sentence(found, len(results))
        else:
            undefined.append(long_name(key))
    if undefined:
        yield f"Undefined{'' if len(results) == 1 else ' for all of them'}: {', '.join(undefined)}."


def _sentence(found: Tally, n_results: int) -> str:
    """A metric's median change, and in how many scans it went which way: worsenings are said like improvements."""
    if abs(found.median_percent) < UNCHANGED_PERCENT:
        moved = "did not change"
    else:
        moved = f"{'fell' if found.median_percent < 0 else 'rose'} by {abs(found.median_percent):.1f}%"
    words = [(w, n) for w in ("better", "worse", "higher", "lower", "unchanged") if (n := found.counts.get(w))]
    if n_results == 1:
        ways = [word for word, _ in words if word in ("better", "worse")]
    else:
        undefined = f", undefined for {n_results - found.n}" if found.n < n_results else ""
        ways = [f"median of {found.n}{undefined}; " + ", ".join(f"{word} in {n}" for word, n in words)]
    return f"{long_name(found.key)} {moved}{f' ({ways[0]})' if ways else ''}."


def _overview_row(result: Result) -> dict[str, Any]:
    return {
        "result": result,
        "outcome": _outcome(result),
        "cells": [_cell(Change.of(result, key)) for key in IMAGE_METRICS],
        "range": number(result.number("field", "inu_range")),
        "time": seconds(result.number("runtime_s", "correct")),
    }


def _outcome(result: Result) -> str:
    """The state, with the gate's verdict where it adds to it."""
    return f"{result.state}, {result.verdict}" if result.verdict in (NEGLIGIBLE, NOT_JUDGED) else result.state


# --- one scan


def _section(number_: int, scan: str, results: list[Result]) -> ScanSection:
    title = scan.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".nii")
    section = ScanSection(f"scan-{number_}", scan, title, [MethodSection(r.method, r) for r in results])
    draw(section)
    _add_tables(section, [result for result in results if result.record])
    return section


# --- tables of one scan


def _add_tables(section: ScanSection, results: list[Result]) -> None:
    if not results:
        return
    # A metric that no method has, with a reason, is named with that reason instead of a row of n/a.
    known = [key for key in image_keys(results) if not all(_explained(result, key) for result in results)]
    section.metrics = [_metric_row(section, results, key) for key in known]
    section.field_metrics = [
        {"name": long_name(key), "cells": [number(method.result.number("field", key)) for method in section.methods]}
        for key in keys(results, "field", FIELD_METRICS)
    ]
    section.times = [
        {
            "name": STEP_NAMES.get(step, step),
            "cells": [seconds(method.result.number("runtime_s", step)) for method in section.methods],
        }
        for step in keys(results, "runtime_s", STEPS)
        if any(result.number("runtime_s", step) is not None for result in results)
    ]
    section.segmentation = list(dict.fromkeys(_segmentation(result) for result in results))
    if len(section.segmentation) > 1:
        section.problems.append(Problem(section.scan, "the methods were scored with different segmentations"))
    sources = {str(result.sidecar["SourceSHA256"]) for result in results if result.sidecar.get("SourceSHA256")}
    if len(sources) > 1:
        section.problems.append(Problem(section.scan, "the methods corrected different versions of the source image"))
    section.notes = _notes(results)
    for method in section.methods:
        method.facts = _facts(method.result)


def _explained(result: Result, key: str) -> bool:
    return all(f"{part}.{key}" in result.part("undefined") for part in ("before", "after"))


def _metric_row(section: ScanSection, results: list[Result], key: str) -> dict[str, Any]:
    changes = {result.method: Change.of(result, key) for result in results}
    befores = [change.before for change in changes.values() if change.before is not None]
    if befores and max(befores) - min(befores) > SAME * max(map(abs, befores)):
        text = f"{long_name(key)} before differs between methods; their segmentations or sources differ"
        section.problems.append(Problem(section.scan, text))
    return {
        "name": long_name(key),
        "better": hint(key),
        "before": " / ".join(dict.fromkeys(number(value) for value in befores)) or NONE,
        "cells": [_cell(changes[method.name]) if method.name in changes else None for method in section.methods],
    }


def _cell(change: Change) -> dict[str, str]:
    """One metric after correction and its change, with the verdict as a word (a color alone is not enough)."""
    if change.percent is None:
        return {"after": number(change.after), "before": number(change.before), "change": "", "verdict": "", "word": ""}
    return {
        "after": number(change.after),
        "before": number(change.before),
        "change": "±0.0%" if abs(change.percent) < 0.05 else f"{change.percent:+.1f}%".replace("-", "−"),
        "verdict": change.verdict,
        "word": change.verdict if change.verdict in ("better", "worse") else "",
    }


def _segmentation(result: Result) -> str:
    part = result.part("segmentation")
    method, on = part.get("method"), part.get("image")
    if not method:
        return "no segmentation recorded"
    return f"{method} ({on})" if on else str(method)


def _notes(results: list[Result]) -> list[str]:
    """Warnings, and why metrics are undefined; one that several methods share is said once."""
    said: dict[str, list[str]] = {}
    for result in results:
        if result.verdict == NOT_JUDGED:
            said.setdefault(f"The field was not judged: {result.verdict_reason}.", []).append(result.method)
        for text in result.texts("warnings"):
            said.setdefault(text, []).append(result.method)
        reasons: dict[str, dict[str, list[str]]] = {}
        for where, reason in result.part("undefined").items():
            part, _, key = str(where).partition(".")
            reasons.setdefault(str(reason), {}).setdefault(long_name(key), []).append(part)
        for reason, metrics in reasons.items():
            names = [name if len(parts) > 1 else f"{name} ({parts[0]})" for name, parts in metrics.items()]
            said.setdefault(f"Undefined, because {reason}: {'; '.join(names)}.", []).append(result.method)
    everyone = len(results)
    return [text if len(by) == everyone else f"{', '.join(by)}: {text}" for text, by in said.items()]


def _facts(result: Result) -> list[tuple[str, str]]:
    """Method, version, parameters and software of one result, flattened; whatever the sidecar says."""
    names = ("Method", "Gate", "SoftwareVersions", "SourceSHA256")
    about = {key: result.sidecar[key] for key in names if key in result.sidecar}
    if result.record.get("method_version") and "Method" not in about:
        about = {"Method": {"Name": result.method, "Version": result.record["method_version"]}, **about}
    return list(_flat(about))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix} › {key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value))
        else:
            yield name, "none" if value is None else str(value)


# --- numbers as text


def number(value: float | None) -> str:
    """Four significant digits."""
    return NONE if value is None else f"{value:#.4g}".rstrip(".") if value else "0"


def seconds(value: float | None) -> str:
    """A run time."""
    if value is None:
        return NONE
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
