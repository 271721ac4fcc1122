"""Evaluation of a multi-site study: which correction the judge calls better, and what it did to CJV, CV and contrast.

Everything is read from written files: ``OUT/evaluation/design.json`` says which scans there are, where their outputs
lie and which site each belongs to; metrics and failures come from the methods' data sets and ``status.tsv``. So an
evaluation can be made again at any time, also while a study is still running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from biascorr_pydra.errors import BIDSError
from biascorr_pydra.metrics import shown_metrics
from biascorr_pydra.report.collect import Cohort, Problem, Result, collect
from biascorr_pydra.report.table import judge_word
from biascorr_pydra.report.verdicts import ALL_SITES, judge_notes, verdict_rows
from biascorr_pydra.statistics.pairing import adjusted, comparisons, group_comparisons

from .columns import comparison_dictionary, scan_dictionary
from .design import read_design

__all__ = ["Evaluation", "evaluate"]

PARTS = ("before", "after", "own_before", "own_after")


@dataclass
class Evaluation:
    """What :func:`evaluate` finds; the frames have one row per line of the tables.

    Attributes
    ----------
    design : dict
        As :func:`write_design` wrote it.
    scans : DataFrame
        One row per scan and method.
    sites, overall : DataFrame
        One row per comparison: a metric under a method against before, or against another method. They describe.
    verdicts, site_verdicts : list of dict
        What the judge says of each method against the acquired image, and of every two: the only ranking.
    notes : list of str
        What was not judged, and why.
    problems : list of (kind, where, text)
    """

    design: dict[str, Any]
    scans: pd.DataFrame
    sites: pd.DataFrame
    overall: pd.DataFrame
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    site_verdicts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        return list(self.design["methods"])


# --- evaluating


def evaluate(out_dir: str | Path) -> Evaluation:
    """Read a study's outputs and compare before with after, and the methods with each other. Writes nothing.

    Raises
    ------
    BIDSError
        There is no readable ``OUT/evaluation/design.json``.
    """
    out_dir = Path(out_dir)
    design = read_design(out_dir)
    problems = [tuple(problem) for problem in design["problems"]]
    results = _results(out_dir, design, problems)
    rows: list[dict[str, Any]] = []
    for scan in design["scans"]:
        by_method = {method: results.get((scan["folder"], scan["scan"], method)) for method in design["methods"]}
        rows += [_scan_row(scan, method, result, problems) for method, result in by_method.items()]
        for result in by_method.values():
            if result is not None:
                result.site = scan["site"]
    scans = pd.DataFrame(rows, columns=list(scan_dictionary()))
    directions = dict.fromkeys(shown_metrics("image"), "none")  # a metric alone ranks nothing
    by_site = dict(iter(scans[scans["site"].notna()].groupby("site", sort=True)))
    sites = [
        row
        for site, group in by_site.items()
        for row in comparisons(group, design["methods"], directions, {"site": site})
    ]
    overall = comparisons(scans, design["methods"], directions, {"unit": "scan"})
    # One value a site, too: scans of one site are not independent.
    overall += group_comparisons(list(by_site.values()), design["methods"], directions, {"unit": "site"})
    verdicts, site_verdicts, notes = _judged(design, list(results.values()))
    tables = _frame(sites, "site"), _frame(overall, "unit")
    return Evaluation(design, scans, *tables, verdicts, site_verdicts, notes, problems)


def _judged(design: Mapping, results: Sequence[Result]) -> tuple[list[dict], list[dict], list[str]]:
    """Verdicts over all scans of a contrast and within its sites, and what was not judged."""
    wanted = {(scan["folder"], scan["scan"]) for scan in design["scans"]}
    mine = [r for r in results if (r.folder, r.scan) in wanted and r.method in design["methods"]]
    overall: list[dict] = []
    by_site: list[dict] = []
    for suffix in sorted({result.suffix for result in mine}):  # contrasts are not mixed
        of_contrast = [result for result in mine if result.suffix == suffix]
        overall += verdict_rows(of_contrast, design["methods"], {"suffix": suffix, "site": ALL_SITES})
        for site in sorted({result.site for result in of_contrast if result.site}):
            of_site = [result for result in of_contrast if result.site == site]
            by_site += verdict_rows(of_site, design["methods"], {"suffix": suffix, "site": site})
    return overall, by_site, judge_notes(mine)


def _results(out_dir: Path, design: Mapping, problems: list) -> dict[tuple[str, str, str], Result]:
    results: dict[tuple[str, str, str], Result] = {}
    for folder in dict.fromkeys(scan["folder"] for scan in design["scans"]):
        try:
            cohort = collect(out_dir / folder)
        except BIDSError as error:
            problems.append(("no output", folder or ".", error.rule))
            continue
        for result in cohort.results:
            result.folder = folder
        results |= {(folder, result.scan, result.method): result for result in cohort.results}
        problems += [("output", _place(folder, p.file), p.text) for p in _relevant(cohort, design["methods"])]
    return results


def _relevant(cohort: Cohort, methods: Sequence[str]) -> list[Problem]:
    """Problems of the methods that are evaluated; other methods' folders may lie beside them."""
    others = set(cohort.methods) - set(methods)
    return [problem for problem in cohort.problems if problem.file.replace(":", "/").split("/")[0] not in others]


def _place(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _scan_row(scan: Mapping, method: str, result: Result | None, problems: list) -> dict[str, Any]:
    session = next((p for p in scan["scan"].split("/") if p.startswith("ses-")), None)
    row = {
        "site": scan["site"],
        "site_source": scan["source"],
        "folder": scan["folder"],
        "participant_id": scan["participant_id"],
        "session_id": session,
        "scan": scan["scan"],
        "method": method,
        "state": result.state if result else "not run",
    }
    if result is None or not result.record:
        reason = result.reason if result and result.failed else "it has no metrics file"
        problems.append(("failed", f"{_place(scan['folder'], scan['scan'])}, {method}", reason))
        return row | {"note": reason}
    row["judge"] = judge_word(result)
    segmentation = result.part("segmentation")
    row["segmentation"] = ", ".join(str(segmentation[key]) for key in ("method", "image") if segmentation.get(key))
    keys = shown_metrics("image")
    for key in keys:
        row |= {f"{key}_{part}": result.number(part, key) for part in PARTS}
    reasons: dict[str, list[str]] = {}
    for where, reason in result.part("undefined").items():
        if where.partition(".")[2] in keys:
            reasons.setdefault(str(reason), []).append(where)
    row["note"] = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items()) or None
    return row


def _frame(rows: list[dict[str, Any]], first: str) -> pd.DataFrame:
    return pd.DataFrame(adjusted(rows), columns=list(comparison_dictionary(first, 0)))
