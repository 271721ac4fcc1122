"""A whole study's results: one data set, or a folder of them, with the site of each scan.

The site of a scan is named, the first that knows it, by the table that the reader gives, by the design of an evaluation
(``OUT/evaluation/design.json``), by ``participants.tsv`` of the source data set if it is still where it was, or by the
folder of its data set. Where nothing names one, the scan has none, and the report says so.
"""

from __future__ import annotations

from pathlib import Path

from biascorr_pydra.bids import Phenotypes, output_folders, participant_key, read_phenotypic
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.report.collect import Cohort, Problem, Result, collect
from biascorr_pydra.report.sources import participants_files

from .design import read_design

__all__ = ["collect_study"]


def collect_study(out_dir: str | Path, participants: str | Path | None = None) -> Cohort:
    """Read the output folder of a cohort, or of a study with one such folder for each data set.

    Parameters
    ----------
    out_dir : path
    participants : path, optional
        Table with the participants' sites: participants.tsv, or a phenotypic table such as ABIDE's.

    Raises
    ------
    BIDSError
        There is no such folder, it is no output folder, or the table that was given cannot be read or has no column for
        the site.
    """
    out_dir = Path(out_dir)
    given = read_phenotypic(participants) if participants else None
    cohort = _whole(out_dir)
    designed = _designed(out_dir)
    results = [*cohort.results, *cohort.normalized]
    tables = {root: _table_of(root) for root in {result.root: None for result in results}}
    for result in results:
        key = participant_key(result.subject or "")
        result.site = (
            (given.sites.get(key) if given else None)
            or designed.get((result.folder, result.scan))
            or tables[result.root].sites.get(key)
            or result.folder
            or None
        )
    return cohort


def _whole(out_dir: Path) -> Cohort:
    folders = output_folders(out_dir)
    if folders == [out_dir]:
        return collect(out_dir)
    results: list[Result] = []
    problems: list[Problem] = []
    normalized: list[Result] = []
    for folder in folders:
        cohort = collect(folder)
        for result in (*cohort.results, *cohort.normalized):
            result.folder = folder.name
        results += cohort.results
        normalized += cohort.normalized
        problems += [Problem(f"{folder.name}/{problem.file}", problem.text) for problem in cohort.problems]
    return Cohort(out_dir.resolve().name, results, problems, normalized)


def _designed(out_dir: Path) -> dict[tuple[str, str], str]:
    try:
        return {(scan["folder"], scan["scan"]): scan["site"] for scan in read_design(out_dir)["scans"]}
    except (BIDSError, KeyError, TypeError):
        return {}


def _table_of(root: Path) -> Phenotypes:
    """The source data set's participants; empty where it is not there or names no sites."""
    file = next(participants_files(root), None)
    if file is None:
        return Phenotypes({})
    try:
        return read_phenotypic(file)
    except BIDSError:  # it has no column for the site: usual, and no fault of the cohort
        return Phenotypes({})
