"""The cohort's report: ``report.html``, one file that needs no network, and tables with their data dictionaries.

Everything is read from written files, so a report can be made again at any time, also while a cohort is still running.
Missing and damaged files are reported in the page; they never stop it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from biascorr_pydra import __version__
from biascorr_pydra.bids import make_folder
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.files import write_text
from biascorr_pydra.lock import FOLDER, alive
from biascorr_pydra.report.study.design import EvaluationPaths, check_evaluation, to_json, write_design

from .collect import Cohort
from .paths import PAGES, scan_page
from .table import columns, data_dictionary, to_tsv

__all__ = [
    "EvaluationPaths",
    "ReportPaths",
    "check_evaluation",
    "is_up_to_date",
    "write_design",
    "write_report",
]


@dataclass(frozen=True)
class ReportPaths:
    """The main files that :func:`write_report` writes."""

    html: Path
    metrics_tsv: Path
    metrics_json: Path
    everything: Path

    @classmethod
    def inside(cls, out_dir: str | Path) -> ReportPaths:
        """Where they are in the output folder of a cohort."""
        out_dir = Path(out_dir)
        return cls(
            out_dir / "report.html",
            out_dir / "metrics.tsv",
            out_dir / "metrics.json",
            out_dir / PAGES / "report.json",
        )


def write_report(
    out_dir: str | Path,
    *,
    threshold: float | None = None,
    mriqc: str | Path | None = None,
    participants: str | Path | None = None,
    figures: str | Path | None = None,
    scan_pages: bool = True,
) -> ReportPaths:
    """Write ``report.html``, ``metrics.tsv`` with ``metrics.json``, and further tables in ``OUT/reports``.

    Parameters
    ----------
    out_dir : path
        Folder with one derivative data set per method, and ``status.tsv`` if the cohort has written it; or a study, a
        folder with one such folder per data set. What is there is reported: a cohort may be unfinished, and files may
        be missing or damaged.
    threshold : float, optional
        Absolute robust z within a site above which a scan is an outlier; 3.5 by default.
    mriqc : path, optional
        MRIQC's group table, joined to the scans by their names.
    participants : path, optional
        Table with the participants' sites; by default participants.tsv of the source data set.
    figures : path, optional
        Folder for the plots as PNG and SVG.
    scan_pages : bool
        Write the scans' pages, too: those that something has changed on.

    Returns
    -------
    ReportPaths
        Earlier reports at these paths are replaced.

    Raises
    ------
    BIDSError
        There is no such folder, or a table that was given is not readable as what it should be.
    InvalidParameterError
        The threshold is not above 0.
    OutputError
        A file cannot be written.
    """
    from biascorr_pydra.report.cohort.agreement import disagreements
    from biascorr_pydra.report.cohort.findings import (
        find,  # pandas, scipy and jinja2 are loaded only by those who make a report
    )
    from biascorr_pydra.report.cohort.group_tables import everything, extra_columns, group_tables, to_text
    from biascorr_pydra.report.cohort.mriqc import read_mriqc
    from biascorr_pydra.report.cohort.page import render
    from biascorr_pydra.report.study.study import collect_study
    from biascorr_pydra.statistics.outliers import THRESHOLD

    out_dir, threshold = Path(out_dir), THRESHOLD if threshold is None else threshold
    if not threshold > 0:
        raise InvalidParameterError("a threshold of robust z is above 0", value=threshold)
    state = _state(out_dir) if out_dir.is_dir() else ""  # what changes while this reads makes the report out of date
    joined = read_mriqc(mriqc) if mriqc else None
    cohort = collect_study(out_dir, participants)
    cohort.problems += disagreements(cohort)
    if joined:
        cohort.problems += joined.problems(cohort)
    if scan_pages:
        from biascorr_pydra.report.scan import write_scan_pages

        said = {(problem.file, problem.text) for problem in cohort.problems}
        found = write_scan_pages(cohort, home=out_dir / "report.html").problems
        cohort.problems += [problem for problem in found if (problem.file, problem.text) not in said]
    findings = find(cohort, threshold, joined)
    paths, made = ReportPaths.inside(out_dir), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    table, tables = [*columns(cohort), *extra_columns(findings)], group_tables(findings)
    write_text(paths.metrics_tsv, to_tsv(cohort, table))
    write_text(paths.metrics_json, to_json(data_dictionary(table)))
    make_folder(out_dir / PAGES)
    for one in tables:
        write_text(out_dir / PAGES / f"{one.name}.tsv", to_text(one))
        write_text(out_dir / PAGES / f"{one.name}.json", to_json(one.columns))
    write_text(paths.everything, to_json(everything(findings, table, made)))
    names = [one.name for one in tables]
    page = render(findings, _links(out_dir, cohort), made=made, running=alive(out_dir), tables=names)
    write_text(paths.html, page)
    if figures:
        from biascorr_pydra.report.cohort.figures import write_figures

        write_figures(findings, figures)
    make_folder(out_dir / FOLDER)
    write_text(_state_file(out_dir), state)
    return paths


def _links(out_dir: Path, cohort: Cohort) -> dict[str, str]:
    """Addresses of the scans' pages that are there, relative to the cohort's."""
    there: dict[Path, set[str]] = {}
    links = {}
    for result in cohort.results:
        page = scan_page(result.root, result.scan)
        if page.parent not in there:
            there[page.parent] = {path.name for path in page.parent.glob("*.html")}
        if page.name in there[page.parent]:
            links[result.place] = quote(page.relative_to(out_dir).as_posix())
    return links


def is_up_to_date(out_dir: str | Path) -> bool:
    """Whether the report shows what is there now: the same outcomes, and every record as it was when it was made."""
    out_dir = Path(out_dir)
    try:
        known = _state_file(out_dir).read_text()
    except OSError:
        return False
    return all(path.is_file() for path in vars(ReportPaths.inside(out_dir)).values()) and known == _state(out_dir)


def _state_file(out_dir: Path) -> Path:
    return out_dir / FOLDER / "report.sha256"


def _state(out_dir: Path) -> str:
    """All that a report is made from, by size and time, as one hash; done now or before makes no difference."""
    digest = hashlib.sha256(__version__.encode())
    status = out_dir / "status.tsv"
    if status.is_file():
        digest.update(status.read_bytes().replace(b"\tdone\t", b"\tcached\t"))
    for path in sorted(out_dir.glob("*/sub-*/**/*.json")):
        found = path.stat()
        digest.update(f"{path.relative_to(out_dir)} {found.st_size} {found.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()
