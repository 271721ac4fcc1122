"""Write the report of a cohort or a study: its page, its tables and their data dictionaries, and the scans' pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from biascorr_pydra.bids import make_folder, mark_study, output_folders
from biascorr_pydra.errors import BIDSError, InvalidParameterError
from biascorr_pydra.images.files import write_text
from biascorr_pydra.lock import alive
from biascorr_pydra.report.study.design import to_json

from .collect import Cohort, Problem
from .paths import PAGES, RATINGS_TABLE, scan_page
from .ratings import Ratings, kept_ratings, read_ratings
from .state import ReportPaths, inputs_of, keep_state
from .table import Column, columns, data_dictionary, to_tsv

if TYPE_CHECKING:
    from biascorr_pydra.report.cohort.findings import Findings
    from biascorr_pydra.report.cohort.group_tables import Table
    from biascorr_pydra.report.cohort.mriqc import MriqcTable

__all__ = ["write_report"]


def write_report(
    out_dir: str | Path,
    *,
    threshold: float | None = None,
    mriqc: str | Path | None = None,
    participants: str | Path | None = None,
    figures: str | Path | None = None,
    ratings: str | Path | None = None,
    scan_pages: bool = True,
    n_procs: int | None = None,
    study: bool = False,
) -> ReportPaths:
    """Write ``report.html``, ``metrics.tsv`` with ``metrics.json``, and further tables in ``OUT/reports``.

    Parameters
    ----------
    out_dir : path
        Folder with one derivative data set per method, and ``status.tsv`` if the cohort has written it; or a study, a
        folder with one such folder per data set and its mark, see :mod:`biascorr_pydra.bids.out_folder`. What is there
        is reported: a cohort may be unfinished, and files may be missing or damaged.
    threshold : float, optional
        Absolute robust z within a site above which a scan is an outlier; 3.5 by default.
    mriqc : path, optional
        MRIQC's group table, joined to the scans by their names.
    participants : path, optional
        Table with the participants' sites; by default participants.tsv of the source data set.
    figures : path, optional
        Folder for the plots as PNG and SVG.
    ratings : path, optional
        Table of readers' ratings, as the page saves it; kept in ``OUT/reports`` for later reports, which
        read it by default. An empty one takes all ratings back.
    scan_pages : bool
        Write the scans' pages, too: those that something has changed on.
    n_procs : int, optional
        Processes that make them; default, as many as this process may use CPUs.
    study : bool
        Take the output folders in ``out_dir`` as the data sets of one study, now and from now on.

    Returns
    -------
    ReportPaths
        Earlier reports at these paths are replaced.

    Raises
    ------
    BIDSError
        There is no such folder, it is no output folder (the right one is named if it lies in it), or a table that was
        given is not readable as what it should be. Then nothing is written.
    InvalidParameterError
        The threshold is not above 0.
    OutputError
        A file cannot be written.
    """
    # pandas, scipy and jinja2 are loaded only by those who make a report
    from biascorr_pydra.report.cohort.findings import find
    from biascorr_pydra.report.cohort.group_tables import extra_columns, group_tables
    from biascorr_pydra.report.cohort.mriqc import read_mriqc
    from biascorr_pydra.report.cohort.page import render
    from biascorr_pydra.statistics.outliers import THRESHOLD

    from .thumbnails import thumbnails

    out_dir, threshold = Path(out_dir), THRESHOLD if threshold is None else threshold
    if not threshold > 0:
        raise InvalidParameterError("a threshold of robust z is above 0", value=threshold)
    if output_folders(out_dir, study=study) != [out_dir] and study:
        mark_study(out_dir)
    inputs = inputs_of(out_dir)  # what changes while this reads makes the report out of date
    mriqc_table = read_mriqc(mriqc) if mriqc else None
    given = read_ratings(ratings) if ratings else None
    cohort = _read(out_dir, participants, mriqc_table)
    rated = _rated(cohort, out_dir, given, ratings)
    if scan_pages:
        _write_scan_pages(cohort, out_dir, rated, n_procs)
    findings = find(cohort, threshold, mriqc_table, rated)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    metrics, tables = [*columns(cohort), *extra_columns(findings)], group_tables(findings)
    paths = _write_tables(out_dir, findings, metrics, tables, made)
    names = [table.name for table in tables]
    pictures = thumbnails(findings.flags)
    page = render(findings, _links(out_dir, cohort), pictures, made=made, running=alive(out_dir), tables=names)
    write_text(paths.html, page)
    if figures:
        from biascorr_pydra.report.cohort.figures import write_figures

        write_figures(findings, figures)
    keep_state(out_dir, inputs)
    return paths


def _read(out_dir: Path, participants: str | Path | None, mriqc: MriqcTable | None) -> Cohort:
    """The results, and all that is at odds in them."""
    from biascorr_pydra.report.cohort.agreement import disagreements
    from biascorr_pydra.report.study.study import collect_study

    cohort = collect_study(out_dir, participants)
    cohort.problems += disagreements(cohort)
    if mriqc:
        cohort.problems += mriqc.problems(cohort)
    return cohort


def _rated(cohort: Cohort, out_dir: Path, given: Ratings | None, file: str | Path | None) -> Ratings:
    """The ratings that were given, or those of the report before; what is odd in them is among the problems.

    Raises
    ------
    BIDSError
        None of the scans that were given is in this cohort.
    """
    if given is None:
        rated, problems = kept_ratings(out_dir)
    else:
        rated, problems = given, []
        if not given.by_place:  # an empty table takes all ratings back
            (out_dir / RATINGS_TABLE).unlink(missing_ok=True)
    try:
        cohort.problems += [*problems, *rated.problems(cohort)]
    except BIDSError as error:
        if given is None:
            cohort.problems.append(Problem(RATINGS_TABLE, error.message))
            return rated
        raise error.about(str(file)) from error
    return rated


def _write_scan_pages(cohort: Cohort, out_dir: Path, rated: Ratings, n_procs: int | None) -> None:
    """Write the scans' pages; what was wrong with them is added to the cohort's problems, once."""
    from biascorr_pydra.report.scan import write_scan_pages

    known = {(problem.file, problem.text) for problem in cohort.problems}
    problems = write_scan_pages(cohort, home=out_dir / "report.html", ratings=rated, n_procs=n_procs).problems
    cohort.problems += [problem for problem in problems if (problem.file, problem.text) not in known]


def _write_tables(
    out_dir: Path, findings: Findings, metrics: list[Column], tables: Sequence[Table], made: str
) -> ReportPaths:
    from biascorr_pydra.report.cohort.group_tables import everything, to_text

    paths = ReportPaths.inside(out_dir)
    write_text(paths.metrics_tsv, to_tsv(findings.cohort, metrics))
    write_text(paths.metrics_json, to_json(data_dictionary(metrics)))
    make_folder(out_dir / PAGES)
    for table in tables:
        write_text(out_dir / PAGES / f"{table.name}.tsv", to_text(table))
        write_text(out_dir / PAGES / f"{table.name}.json", to_json(table.columns))
    write_text(paths.everything, to_json(everything(findings, metrics, made)))
    return paths


def _links(out_dir: Path, cohort: Cohort) -> dict[str, str]:
    """Addresses of the scans' pages that exist, relative to the cohort's."""
    names: dict[Path, set[str]] = {}
    links = {}
    for result in cohort.results:
        page = scan_page(result.root, result.scan)
        if page.parent not in names:
            names[page.parent] = {path.name for path in page.parent.glob("*.html")}
        if page.name in names[page.parent]:
            links[result.place] = quote(page.relative_to(out_dir).as_posix())
    return links
