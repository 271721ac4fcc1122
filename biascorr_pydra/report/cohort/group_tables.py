"""The tables of a cohort's report in ``OUT/reports``, each with its data dictionary, and all of it as one JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biascorr_pydra import __version__
from biascorr_pydra.report.ratings import COLUMNS as RATING_COLUMNS
from biascorr_pydra.report.ratings import rating_columns
from biascorr_pydra.report.study.columns import comparison_dictionary
from biascorr_pydra.report.table import MISSING, Column
from biascorr_pydra.report.verdicts import columns_of_verdicts
from biascorr_pydra.statistics.compare import FEWEST_SCANS
from biascorr_pydra.statistics.outliers import FEWEST

from .findings import Findings
from .methods_text import methods_text
from .outliers import judged_measures

__all__ = ["Table", "everything", "extra_columns", "group_tables", "to_text"]

KINDS = {
    "failed": "the correction failed",
    "rejected": "the gate rejected the field",
    "worse": "the judge calls the acquired image the better one",
    "outlier": "a number lies further than the threshold from the median of its site",
}


@dataclass(frozen=True)
class Table:
    """A table with its data dictionary; rows by column name."""

    name: str
    columns: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]


def _about(description: str, **facts: Any) -> dict[str, Any]:
    return {"Description": description, **facts}


_WHICH = {
    "suffix": _about("BIDS suffix: the contrast."),
    "method": _about("Bias-field corrector."),
    "site": _about('Site; "all sites" for all of them.'),
}
_SITES = {
    **_WHICH,
    "n_scans": _about("Scans with a histogram before and after."),
    "jsd_before": _about(
        "Jensen-Shannon divergence (natural logarithm, 0 to ln 2 = 0.69 for one site) of the site's mean histogram of "
        "brain intensities, divided by their median, from that of the other sites; acquired images. For all sites: of "
        "all of them from their mean (0 to the logarithm of their number).",
        Units="1",
        Direction="lower",
    ),
    "jsd_after": _about("The same of the corrected images.", Units="1", Direction="lower"),
}
_TIMES = {
    **{key: _WHICH[key] for key in ("suffix", "method")},
    "step": _about('Step of the work; what the methods of a scan share stands once, under "all methods".'),
    "n_scans": _about("Scans whose time is recorded."),
    "median_s": _about("Median wall-clock time.", Units="s"),
    "q25_s": _about("First quartile.", Units="s"),
    "q75_s": _about("Third quartile.", Units="s"),
    "total_h": _about("All scans together, one after the other.", Units="h"),
    "per_1000_scans_h": _about("What 1,000 such scans would take, one after the other.", Units="h"),
}
_FLAGGED = {
    "place": _about("Source image, relative to the study."),
    "site": _WHICH["site"],
    "suffix": _WHICH["suffix"],
    "method": _about("The method concerned; n/a where it is the acquired image."),
    "kind": _about("Why the scan is listed.", Levels=KINDS),
    "column": _about("For an outlier, the column of metrics.tsv, or change in percent of one."),
    "value": _about("Its value."),
    "median": _about("Median of the scans it is compared with."),
    "spread": _about("Their robust standard deviation: 1.4826 MAD."),
    "z": _about("(value - median) / spread."),
    "n": _about("Scans compared."),
    "group": _about(f"Its site, or all sites where its site has fewer than {FEWEST} scans."),
    "text": _about("The reason in words."),
}
_PROBLEMS = {"file": _about("File or scan concerned."), "text": _about("What is missing, damaged or in disagreement.")}


def group_tables(findings: Findings) -> list[Table]:
    """flagged, verdicts and comparisons (each also by site), site_differences, run_times, problems."""
    first = {key: _WHICH[key] for key in ("suffix", "site")}
    comparisons = [
        Table("verdicts", {**first, **columns_of_verdicts()}, findings.verdicts),
        Table("verdicts_by_site", {**first, **columns_of_verdicts()}, findings.verdicts_by_site),
    ]
    for name, rows in (("comparisons", findings.comparisons), ("comparisons_by_site", findings.by_site)):
        metrics = list(dict.fromkeys(row["metric"] for row in rows))
        n_tests = sum(row["p"] is not None for row in rows)
        columns = {"suffix": _WHICH["suffix"], **comparison_dictionary("site", n_tests, metrics)}
        comparisons.append(Table(name, columns, rows))
    problems = [{"file": problem.file, "text": problem.text} for problem in findings.cohort.problems]
    return [
        Table("flagged", _FLAGGED, list(_flagged(findings))),
        *comparisons,
        Table("site_differences", _SITES, findings.site_differences),
        Table("run_times", _TIMES, findings.run_times),
        Table("problems", _PROBLEMS, problems),
        *([Table("ratings", RATING_COLUMNS, list(_ratings(findings)))] if findings.ratings.by_place else []),
    ]


def _ratings(findings: Findings) -> Iterable[dict[str, Any]]:
    for place, rating in findings.ratings.by_place.items():
        yield {"scan": place, **rating.as_row()}


def _flagged(findings: Findings) -> Iterable[dict[str, Any]]:
    for flag in findings.flags:
        first = {"place": flag.place, "site": flag.results[0].site, "suffix": flag.results[0].suffix}
        for reason in flag.reasons:
            row: dict[str, Any] = {**first, "method": reason.method, "kind": reason.kind, "text": reason.text}
            if (score := reason.score) is not None and reason.measure is not None:
                row |= {"column": reason.measure.column, "value": score.value, "median": score.median}
                row |= {"spread": score.spread, "z": score.z, "n": score.n, "group": score.group}
            yield row


def extra_columns(findings: Findings) -> list[Column]:
    """What the report adds to metrics.tsv: flags, robust z, and MRIQC's columns."""
    scored = {id(r): scores for r, scores in zip(findings.cohort.results, findings.scored, strict=True)}
    kinds: dict[int, list[str]] = {}
    for flag in findings.flags:
        reasons = dict.fromkeys(reason.kind for reason in flag.reasons)
        kinds |= {id(result): list(reasons) for result in flag.results}
    description = f"Why to look at the scan; outlier: an absolute robust z above {findings.threshold:g}."
    entry = {"LongName": "Flags", **_about(description, Levels=KINDS)}
    table = [Column("flags", entry, lambda result: ", ".join(kinds.get(id(result), ())))]
    for measure in judged_measures():
        entry = {
            "LongName": f"Robust z of {measure.title}",
            "Description": "(value - median) / (1.4826 MAD) among the scans of its site, contrast and method; among all"
            f" sites where its site has fewer than {FEWEST}; n/a where these are too few or do not differ.",
            "Units": "1",
        }

        def read(result, measure=measure):
            score = scored[id(result)].get(measure)
            return score.z if score else None

        table.append(Column(f"z_{measure.column}", entry, read))
    return table + rating_columns(findings.ratings) + (findings.mriqc.columns() if findings.mriqc else [])


def to_text(table: Table) -> str:
    """Tab-separated, n/a where there is no value."""
    lines = [list(table.columns)]
    lines += [[_cell(row.get(name)) for name in table.columns] for row in table.rows]
    return "".join("\t".join(line) + "\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN is undefined as well
        return MISSING
    return repr(value) if isinstance(value, float) else " ".join(str(value).split()) or MISSING


def everything(findings: Findings, metrics: Sequence[Column], made: str) -> dict[str, Any]:
    """The whole report for programs: the summary, the tables and their dictionaries."""
    tables = group_tables(findings)
    rows = [{column.name: column.read(result) for column in metrics} for result in findings.cohort.results]
    return {
        "GeneratedBy": {"Name": "biascorr_pydra", "Version": __version__},
        "Made": made,
        "Complete": not findings.waiting,
        "Waiting": findings.waiting,
        "OtherSettings": [f"{result.place}, {result.method}" for result in findings.outdated],
        "Threshold": findings.threshold,
        "FewestScansOfASite": FEWEST,
        "FewestScansForATest": FEWEST_SCANS,
        "MethodsText": methods_text(findings),
        "Dictionaries": {"metrics": {c.name: c.entry for c in metrics}, **{t.name: t.columns for t in tables}},
        "Tables": {"metrics": rows, **{table.name: list(table.rows) for table in tables}},
    }
