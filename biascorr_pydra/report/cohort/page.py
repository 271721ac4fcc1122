"""The cohort's page: words, plots and tables of all scans in one HTML file that loads nothing else.

All texts go through jinja2's escaping, and the plots' data through that of :mod:`.payload`: names,
error messages and metadata come from outside. The page's policy lets only its own scripts run, known by their hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from biascorr_pydra import __version__
from biascorr_pydra.judge import ACQUIRED
from biascorr_pydra.metrics import shown_metrics
from biascorr_pydra.quality import NEGLIGIBLE, NOT_JUDGED, REJECTED
from biascorr_pydra.report.collect import Cohort, Result
from biascorr_pydra.report.ratings import ACCEPT, EXCLUDE
from biascorr_pydra.report.scripts import NO_SCRIPTS, RATINGS, as_json, scripts_of
from biascorr_pydra.report.table import (
    UNCHANGED_PERCENT,
    Change,
    Tally,
    comparison_way,
    hint,
    judge_word,
    long_name,
    tally,
)
from biascorr_pydra.report.verdicts import ALL_SITES, reading, sentence
from biascorr_pydra.report.words import NONE, STEP_NAMES, hours, number, p_value, percent, plural, seconds
from biascorr_pydra.statistics.outliers import FEWEST
from biascorr_pydra.statistics.verdicts import BETTER, WORSE

from .findings import Findings
from .flags import KINDS, SHOWN, Flag, Thumbnail
from .judge_part import judge_part
from .methods_text import methods_text
from .payload import payload

__all__ = ["render"]

HERE = Path(__file__).parent
PLOTLY = HERE / "plotly" / "plotly-cartesian.min.js"
STATES = ("done", "cached", "rejected", "failed", "waiting", "skipped")


def render(
    findings: Findings,
    links: Mapping[str, str],
    thumbnails: Mapping[str, Thumbnail],
    *,
    made: str,
    running: bool,
    tables: list[str],
) -> str:
    """The page as HTML.

    Parameters
    ----------
    findings
    links : addresses of the scans' pages that are there, relative to this page, by the scans' places
    thumbnails : of scans to look at, by place
    made : when
    running : whether a run is at work in the folder
    tables : names of the tables written beside it
    """
    cohort = findings.cohort
    scripts = scripts_of(PLOTLY, RATINGS, HERE / "page.js") if cohort.results else NO_SCRIPTS
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        name=cohort.name,
        version=__version__,
        made=made,
        running=running,
        plural=plural,
        links={result.place: links.get(result.place) for result in cohort.results},
        sites=findings.sites,
        suffixes=sorted({result.suffix for result in cohort.results}),
        counts=_counts(cohort),
        outdated=findings.outdated[:SHOWN],
        n_outdated=len(findings.outdated),
        normalized=len(cohort.normalized),
        judge=judge_part(findings),
        summary=list(_summary(findings)),
        paragraphs=methods_text(findings),
        flags=findings.flags,
        flagged=findings.flags[:SHOWN],
        flag_counts=_flag_counts(findings.flags),
        kinds={kind: reason for kind, reason in KINDS.items() if kind in {flag.kind for flag in findings.flags}},
        thumbnails=thumbnails,
        rated=_rated(findings),
        threshold=f"{findings.threshold:g}",
        problems=cohort.problems,
        shown_problems=cohort.problems[:SHOWN],
        comparisons=[_comparison(row) for row in findings.comparisons],
        differences=[_difference(row) for row in findings.site_differences if row["site"] == ALL_SITES],
        no_differences=_no_differences(findings),
        times=[_time(row) for row in findings.run_times],
        devices=", ".join(_devices(cohort)) or "not recorded",
        overview_keys=[(key, long_name(key), hint(key)) for key in shown_metrics("image")],
        overview=list(_overview(findings)),
        reading=_reading(),
        tables=[f"{name}.tsv" for name in tables],
        data=as_json(payload(findings, links)),
        style=Markup((HERE / "page.css").read_text("utf-8")),
        scripts=scripts,
        plotly=_plotly_version(),
    )


# --- scripts


def _plotly_version() -> str:
    version = re.search(r"v(\d[\d.]*)", PLOTLY.read_text("utf-8")[:200])
    return version[1] if version else ""


# --- words first


def _counts(cohort: Cohort) -> dict[str, Any]:
    states = [result.state for result in cohort.results]
    verdicts = [result.verdict for result in cohort.results]
    return {
        "scans": len(cohort.by_scan()),
        "subjects": len({(result.folder, result.subject) for result in cohort.results}),
        "methods": cohort.methods,
        "jobs": len(states),
        "made": sum(states.count(state) for state in ("done", "cached", "rejected")),
        "refused": verdicts.count(REJECTED),
        "negligible": verdicts.count(NEGLIGIBLE),
        "not_judged": verdicts.count(NOT_JUDGED),
        **{state: states.count(state) for state in STATES},
        "other": sum(state not in STATES for state in states),
    }


def _summary(findings: Findings) -> Iterator[dict[str, Any]]:
    """One paragraph per method and contrast: contrasts are not mixed, their metrics are not comparable."""
    verdicts = {(r["suffix"], r["method"]): r for r in findings.verdicts if r["reference"] == ACQUIRED}
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in findings.cohort.results:
        groups.setdefault((result.suffix, result.method), []).append(result)
    for (suffix, method), results in sorted(groups.items()):
        corrected = [r for r in results if r.record]
        counted = [r for r in corrected if not findings.ratings.excluded(r.place)]
        left_out = f" {len(corrected) - len(counted)} left out of what follows: rated “exclude”."
        times = [t for result in corrected if (t := result.number("runtime_s", "correct")) is not None]
        took = f"Correction took {seconds(median(times))}{' (median)' if len(times) > 1 else ''}." if times else ""
        yield {
            "title": f"{suffix}, {method}",
            "corrected": f"{len(corrected):,} of {plural(len(results), 'scan')} corrected."
            + left_out * (len(counted) < len(corrected)),
            "sentences": [sentence(verdicts[suffix, method]), *_sentences(counted)] if counted else [],
            "time": took,
        }


def _sentences(results: list[Result]) -> Iterator[str]:
    undefined = []
    for key in shown_metrics("image"):
        changes = tally(results, key)
        if changes.n:
            yield _sentence(changes, len(results))
        else:
            undefined.append(long_name(key))
    if undefined:
        yield f"Undefined{'' if len(results) == 1 else ' for all of them'}: {', '.join(undefined)}."


def _sentence(changes: Tally, n_results: int) -> str:
    """A metric's median change, and in how many scans it went which way; whether that is good, the judge says."""
    middle = changes.median_percent or 0.0
    if abs(middle) < UNCHANGED_PERCENT:
        moved = "did not change"
    else:
        moved = f"{'fell' if middle < 0 else 'rose'} by {abs(middle):.1f}%"
    if n_results == 1:
        return f"{long_name(changes.key)} {moved}."
    words = [f"{way} in {n:,}" for way in ("lower", "higher", "unchanged") if (n := changes.counts.get(way))]
    undefined = f", undefined for {n_results - changes.n}" if changes.n < n_results else ""
    return f"{long_name(changes.key)} {moved} (median of {changes.n:,}{undefined}; {', '.join(words)})."


def _rated(findings: Findings) -> dict[str, Any]:
    """How many of the cohort's scans were rated how, and which were excluded."""
    here = findings.cohort.by_scan()
    words = {place: rating.rating for place, rating in findings.ratings.by_place.items() if place in here}
    excluded = [place for place, word in words.items() if word == EXCLUDE]
    return {
        "n": len(words),
        "accepted": list(words.values()).count(ACCEPT),
        "excluded": [here[place][0] for place in excluded[:SHOWN]],
        "n_excluded": len(excluded),
        "words": words,
    }


def _flag_counts(flags: list[Flag]) -> str:
    kinds = [flag.kind for flag in flags]
    words = {
        "failed": "failed",
        "rejected": "with a rejected field",
        "worse": "worse than acquired",
        "outlier": "outliers of their site",
    }
    return ", ".join(f"{kinds.count(kind):,} {words[kind]}" for kind in KINDS if kind in kinds)


def _reading() -> list[str]:
    return [
        *reading(),
        f"Changes are in percent of the value before; below {UNCHANGED_PERCENT:g}% counts as unchanged. A paired "
        "comparison whose 95% interval holds 0 is called unchanged within noise.",
        "Robust z: (value − median) / (1.4826 × median absolute deviation), over the scans of one site, contrast and "
        f"method. Sites of fewer than {FEWEST} scans are judged among all scans of the contrast and method, which "
        "also counts the differences between sites as spread; where these are too few as well, nothing is judged.",
        "A rejected or negligible field was not divided out: such a scan counts, with what it was passed on as.",
        "Scans of one site share a scanner: the tests take them as independent, which they are not quite.",
    ]


# --- tables


def _comparison(row: Mapping[str, Any]) -> dict[str, Any]:
    word = comparison_way(row)
    interval = f"{number(row['ci_low'])} to {number(row['ci_high'])}" if row["ci_low"] is not None else ""
    return {
        **row,
        "title": long_name(row["metric"]),
        "medians": f"{number(row['median_reference'])} → {number(row['median_method'])}" if row["n"] else NONE,
        "change": number(row["median_change"]),
        "interval": interval,
        "percent": percent(row["median_change_percent"]),
        "remark": word if word.startswith("unchanged") else "",
        "p": p_value(row["p_holm"]) if row["p_holm"] is not None else _no_test(row),
    }


def _no_test(row: Mapping[str, Any]) -> str:
    return "no change" if row["n"] and row["n_tied"] == row["n"] else "too few"


def _difference(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "before": number(row["jsd_before"]), "after": number(row["jsd_after"])}


def _no_differences(findings: Findings) -> str:
    if not findings.sites:
        return (
            "nothing names the scans' sites. A column “site” in the source data set's participants.tsv does, or "
            "biascorr report --participants FILE."
        )
    if len(findings.sites) == 1:
        return "all scans are of one site."
    return "the records have no histograms of intensities of two sites; they were made by an earlier version."


def _time(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "step": STEP_NAMES.get(row["step"], row["step"].replace("_", " ")),
        "median": seconds(row["median_s"]),
        "quartiles": f"{seconds(row['q25_s'])} to {seconds(row['q75_s'])}",
        "total": hours(row["total_h"]),
        "per_1000": hours(row["per_1000_scans_h"]),
    }


def _devices(cohort: Cohort) -> list[str]:
    made = (result.sidecar.get("Method") for result in cohort.results)
    return sorted({str(about["Device"]) for about in made if isinstance(about, Mapping) and about.get("Device")})


def _overview(findings: Findings) -> Iterator[dict[str, Any]]:
    kinds: dict[str, set[str]] = {}
    for flag in findings.flags:
        kinds[flag.place] = {"look", *(reason.kind for reason in flag.reasons)}
    for result, scored in zip(findings.cohort.results, findings.scored, strict=True):
        z = max((abs(score.z) for score in scored.values()), default=None)
        width, time = result.number("field", "inu_range"), result.number("runtime_s", "correct")
        reasons = kinds.get(result.place, set()) - {"failed", "rejected"}
        reasons |= {kind for kind, holds in _own_kinds(result).items() if holds}
        yield {
            "result": result,
            "outcome": _outcome(result),
            "alarming": result.failed or result.verdict == REJECTED,
            "kinds": " ".join(sorted(reasons)),
            "z": NONE if z is None else f"{z:.1f}",
            "z_value": _sortable(z),
            "judge": _judge(result),
            "cells": [_cell(Change.of(result, key)) for key in shown_metrics("image")],
            "range": number(width),
            "range_value": _sortable(width),
            "time": seconds(time),
            "time_value": _sortable(time),
        }


def _own_kinds(result: Result) -> dict[str, bool]:
    """Filters that hold for the method's row, not for the scan."""
    verdict = result.verdict
    return {"failed": result.failed, "rejected": verdict == REJECTED, "negligible": verdict == NEGLIGIBLE}


def _outcome(result: Result) -> str:
    """The state, with the gate's verdict where it adds to it."""
    return f"{result.state}, {result.verdict}" if result.verdict in (NEGLIGIBLE, NOT_JUDGED) else result.state


def _judge(result: Result) -> dict[str, str]:
    """The judge's verdict against the acquired image; only better and worse have a color."""
    word = judge_word(result) or NONE
    return {"word": word, "color": word if word in (BETTER, WORSE) else ""}


def _cell(change: Change) -> dict[str, str]:
    """One metric after correction and its change."""
    if change.percent is None:
        return dict.fromkeys(("after", "before", "change", "value"), "")
    return {
        "after": number(change.after),
        "before": number(change.before),
        "change": percent(change.percent),
        "value": _sortable(change.percent),
    }


def _sortable(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
