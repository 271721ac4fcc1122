"""Evaluation of a multi-site study: what correction did to CJV, CV and contrast, by scan, by site and overall.

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
from biascorr_pydra.images.files import write_bytes, write_text
from biascorr_pydra.report.cohort.pairing import adjusted, by_method, comparison_row, comparisons, pairs, values_of
from biascorr_pydra.report.collect import Cohort, Problem, Result, collect
from biascorr_pydra.report.table import IMAGE_METRICS, direction
from biascorr_pydra.statistics.compare import compare

from .columns import PROBLEM_COLUMNS, comparison_dictionary, scan_dictionary
from .design import EvaluationPaths, read_design, to_json

__all__ = ["Evaluation", "evaluate", "read_problems", "write_evaluation"]

MISSING = "n/a"
#: Values before correction that differ by more than this part between methods were measured on other segmentations.
SAME = 1e-6


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
        One row per comparison: a metric under a method against before, or against another method.
    problems : list of (kind, where, text)
    """

    design: dict[str, Any]
    scans: pd.DataFrame
    sites: pd.DataFrame
    overall: pd.DataFrame
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
        mine = {method: results.get((scan["folder"], scan["scan"], method)) for method in design["methods"]}
        rows += [_scan_row(scan, method, result, problems) for method, result in mine.items()]
        _check_before(scan, mine, problems)
    scans = pd.DataFrame(rows, columns=list(scan_dictionary()))
    sites = [
        row
        for site, group in scans[scans["site"].notna()].groupby("site", sort=True)
        for row in comparisons(group, design["methods"], IMAGE_METRICS, {"site": site})
    ]
    overall = comparisons(scans, design["methods"], IMAGE_METRICS, {"unit": "scan"})
    overall += _site_comparisons(scans, design["methods"])
    return Evaluation(design, scans, _frame(sites, "site"), _frame(overall, "unit"), problems)


def _results(out_dir: Path, design: Mapping, problems: list) -> dict[tuple[str, str, str], Result]:
    found = {}
    for folder in dict.fromkeys(scan["folder"] for scan in design["scans"]):
        try:
            cohort = collect(out_dir / folder)
        except BIDSError as error:
            problems.append(("no output", folder or ".", error.rule))
            continue
        found |= {(folder, result.scan, result.method): result for result in cohort.results}
        problems += [("output", _place(folder, p.file), p.text) for p in _relevant(cohort, design["methods"])]
    return found


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
    segmentation = result.part("segmentation")
    row["segmentation"] = ", ".join(str(segmentation[key]) for key in ("method", "image") if segmentation.get(key))
    for key in IMAGE_METRICS:
        row |= {f"{key}_{part}": result.number(part, key) for part in ("before", "after")}
    reasons: dict[str, list[str]] = {}
    for where, why in result.part("undefined").items():
        if where.partition(".")[2] in IMAGE_METRICS:
            reasons.setdefault(str(why), []).append(where)
    row["note"] = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items()) or None
    return row


def _check_before(scan: Mapping, results: Mapping[str, Result | None], problems: list) -> None:
    """Methods are compared on one segmentation: then their values before correction are the same."""
    for key in IMAGE_METRICS:
        values = [result.number("before", key) for result in results.values() if result is not None]
        values = [value for value in values if value is not None]
        if values and max(values) - min(values) > SAME * max(map(abs, values)):
            text = f"{key} before correction differs between methods: other segmentations or sources; run with --rerun"
            problems.append(("segmentations differ", _place(scan["folder"], scan["scan"]), text))
            return


def _site_comparisons(scans: pd.DataFrame, methods: Sequence[str]) -> list[dict[str, Any]]:
    """The same comparisons with one value a site, the median over its scans: scans of one site are not independent."""
    sites = [by_method(group) for _, group in scans[scans["site"].notna()].groupby("site", sort=True)]
    rows = []
    for key in IMAGE_METRICS:
        for reference, method in pairs(methods):
            medians = [values_of(site, key, reference, method).dropna().median() for site in sites]
            references, values = ([median[name] for median in medians] for name in ("reference", "method"))
            paired = compare(references, values, direction=direction(key))
            first = {"unit": "site", "metric": key, "method": method, "reference": reference}
            rows.append(comparison_row(first, paired, {"n_scans": None, "n_participants": None}))
    return rows


def _frame(rows: list[dict[str, Any]], first: str) -> pd.DataFrame:
    return pd.DataFrame(adjusted(rows), columns=list(comparison_dictionary(first, 0)))


# --- writing


def write_evaluation(out_dir: str | Path) -> EvaluationPaths:
    """Write the tables with their data dictionaries, the figure and the summary into ``OUT/evaluation``.

    Raises
    ------
    BIDSError
        There is no readable design.
    OutputError
        A file cannot be written.
    """
    from .figure import draw_changes  # matplotlib is loaded only by those who draw
    from .text import summary, to_html, to_markdown

    paths = EvaluationPaths.inside(out_dir)
    found = evaluate(out_dir)
    dictionaries = {
        "scans": scan_dictionary(),
        "sites": comparison_dictionary("site", int(found.sites["p"].notna().sum())),
        "overall": comparison_dictionary("unit", int(found.overall["p"].notna().sum())),
        "problems": PROBLEM_COLUMNS,
    }
    frames = {"scans": found.scans, "sites": found.sites, "overall": found.overall}
    frames["problems"] = pd.DataFrame(found.problems, columns=list(PROBLEM_COLUMNS))
    for name, frame in frames.items():
        write_text(paths.table(name), _tsv(frame))
        write_text(paths.table(name).with_suffix(".json"), to_json(dictionaries[name]))
    picture = draw_changes(found)
    if picture is None:
        paths.figure.unlink(missing_ok=True)
    else:
        write_bytes(paths.figure, picture)
    blocks = summary(found, has_figure=picture is not None)
    write_text(paths.markdown, to_markdown(blocks, paths.figure.name))
    write_text(paths.html, to_html(blocks, picture))
    return paths


def read_problems(out_dir: str | Path) -> list[list[str]]:
    """Kind, place and text of each problem in the evaluation's problems.tsv."""
    lines = EvaluationPaths.inside(out_dir).table("problems").read_text().splitlines()
    return [line.split("\t") for line in lines[1:]]


def _tsv(frame: pd.DataFrame) -> str:
    lines = ["\t".join(frame.columns)]
    lines += ["\t".join(_cell(value) for value in row) for row in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value != value:  # NaN: pandas' spelling of undefined
        return MISSING
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(float(value))
    # BIDS tables know no quoting, so that a tab or a line end inside a text must go.
    return " ".join(str(value).split()) or MISSING
