"""Find and read what a cohort has written: metrics, sidecars, images' paths, and the status of each scan.

No image is opened here. Whatever is missing or unreadable becomes a :class:`Problem`, in words, for the page.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

from biascorr_pydra.bids import NORMALIZED, Job, output_paths, sidecar
from biascorr_pydra.cohort import status
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.quality import REJECTED

from .judge_records import JUDGE, join
from .results import Problem, Result, natural, read_json, source_of

__all__ = ["UNMADE", "Cohort", "Problem", "Result", "collect", "natural"]

IMAGES = ("corrected", "bias", "rejected", "mask", "dseg")
UNMADE = ("failed", "waiting", "skipped")  # states of what has no files
REQUIRED = {"corrected": "corrected image", "bias": "bias field"}  # a mask may be absent by choice

_METRICS = re.compile(r"^(?P<prefix>.+)_desc-(?P<suffix>[A-Za-z0-9]+)_metrics\.json$")


@dataclass
class Cohort:
    """All results, in the order of scan and method, and what could not be read.

    ``normalized`` are the records of normalized images, which are no results of a correction: only the sites'
    intensities are compared in them.
    """

    name: str
    results: list[Result]
    problems: list[Problem]
    normalized: list[Result] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(sorted((result.method for result in self.results), key=natural)))

    def by_scan(self) -> dict[str, list[Result]]:
        scans: dict[str, list[Result]] = {}
        for result in self.results:
            scans.setdefault(result.place, []).append(result)
        return scans


def collect(out_dir: str | Path) -> Cohort:
    """Read the output folder of a cohort.

    Raises
    ------
    BIDSError
        There is no such folder.
    """
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        raise BIDSError(
            "no such folder", file=out_dir, next_step="Give the output folder of a cohort that was started."
        )
    problems: list[Problem] = []
    normalized = _read_normalized(out_dir, problems)
    by_scan_and_method: dict[tuple[str, str], Result] = {}
    for folder in sorted(out_dir.iterdir(), key=lambda path: natural(path.name)):
        if folder.name.startswith(".") or folder.name == JUDGE or not folder.is_dir():
            continue
        results = _read_method(folder, out_dir, problems)
        if results and not (folder / "dataset_description.json").is_file():
            problems.append(Problem(f"{folder.name}/dataset_description.json", "missing: not a BIDS data set"))
        for result in results:
            key = result.scan, result.method
            if key in by_scan_and_method:
                problems.append(Problem(f"{result.method}: {result.scan}", "two metrics files name this source"))
            by_scan_and_method.setdefault(key, result)
    _apply_status(out_dir, by_scan_and_method, problems)
    join(out_dir, by_scan_and_method, problems)
    results = sorted(by_scan_and_method.values(), key=lambda result: (natural(result.scan), natural(result.method)))
    return Cohort(out_dir.resolve().name, results, problems, normalized)


# --- file names


def _siblings(metrics_file: Path, prefix: str, suffix: str) -> dict[str, Path]:
    """Outputs that belong to a metrics file, by the kinds of :func:`biascorr_pydra.bids.output_paths`."""
    entities = tuple((key, value) for key, dash, value in (part.partition("-") for part in prefix.split("_")) if dash)
    return output_paths(Job(metrics_file, metrics_file.name, entities, suffix), metrics_file.parent)


def _metrics_of(corrected: Path) -> Path:
    prefix, suffix = corrected.name.removesuffix(".nii.gz").rsplit("_desc-preproc_", 1)
    return _siblings(corrected, prefix, suffix)["metrics"]


# --- reading


def _read_method(folder: Path, out_dir: Path, problems: list[Problem]) -> list[Result]:
    results = []
    for path in sorted(folder.glob("sub-*/**/*_metrics.json")):
        match = _METRICS.match(path.name)
        name = path.relative_to(out_dir).as_posix()
        record = read_json(path, name, problems) if match else None
        if match is None:
            problems.append(Problem(name, "not a name this report knows (..._desc-SUFFIX_metrics.json)"))
        elif record is not None:
            results.append(_result(path, match, record, out_dir, problems))
    for path in sorted(folder.glob("sub-*/**/*_desc-preproc_*.nii.gz")):
        if not _metrics_of(path).is_file():
            name = path.relative_to(out_dir).as_posix()
            problems.append(Problem(name, "a corrected image without its metrics file; it is left out of the tables"))
    return results


def _read_normalized(out_dir: Path, problems: list[Problem]) -> list[Result]:
    """The records that ``biascorr normalize-cohort`` leaves."""
    results = []
    for path in sorted((out_dir / NORMALIZED).glob("sub-*/**/*_normalization.json")):
        record = read_json(path, path.relative_to(out_dir).as_posix(), problems)
        if record is not None:
            scan = source_of(str(record.get("source", "")))
            results.append(Result(scan, NORMALIZED, state="done", record=record, root=out_dir))
    return results


def _result(path: Path, match: re.Match, record: dict, out_dir: Path, problems: list[Problem]) -> Result:
    method = path.relative_to(out_dir).parts[0]
    prefix, suffix = match["prefix"], match["suffix"]
    name = path.relative_to(out_dir).as_posix()
    source = record.get("source")
    if not isinstance(source, str) or not source:
        problems.append(Problem(name, "does not say which source it belongs to; named after its own file"))
        source = f"{path.parent.relative_to(out_dir / method).as_posix()}/{prefix}_{suffix}.nii.gz"
    images = _siblings(path, prefix, suffix)
    sidecar_file = sidecar(images["corrected"])
    about = read_json(sidecar_file, sidecar_file.relative_to(out_dir).as_posix(), problems) or {}
    files = {kind: images[kind] for kind in IMAGES if images[kind].is_file()}
    for kind, title in REQUIRED.items():
        if kind not in files:
            problems.append(Problem(images[kind].relative_to(out_dir).as_posix(), f"missing: the {title}"))
    return Result(source_of(source), method, record=record, sidecar=about, files=files, root=out_dir)


def _apply_status(out_dir: Path, results: dict[tuple[str, str], Result], problems: list[Problem]) -> None:
    """Add states and failures; a result of an earlier run does not stand in for a failure of the last one."""
    outdated = status.outdated(out_dir)
    for row in _read_status(out_dir / "status.tsv", problems):
        scan, method, state = row["scan"], row["method"], row["state"]
        if method == NORMALIZED:  # no correction: it has no part in the tables
            if state == "failed":
                problems.append(Problem(f"{method}: {scan}", row["reason"]))
            continue
        known = results.get((scan, method))
        result = results.setdefault((scan, method), Result(scan, method, root=out_dir))
        replaced = outdated.get((scan, method)) is False
        if known is not None and (state == "waiting" or replaced):
            state = "rejected" if known.verdict == REJECTED else "done"  # the run has reached it since
        result.state, result.reason = state, "n/a" if replaced else row["reason"]
        result.outdated = outdated.get((scan, method), False)
        if state == "failed" and known is not None:
            problems.append(
                Problem(f"{method}: {scan}", "failed in the last run; an earlier run's files are there, not shown")
            )
            result.record, result.sidecar, result.files = {}, {}, {}
        elif state not in UNMADE and known is None:
            problems.append(
                Problem(f"{method}: {scan}", f"{state} according to status.tsv, but no readable metrics file names it")
            )


def _read_status(path: Path, problems: list[Problem]) -> list[dict[str, str]]:
    if not path.is_file():
        problems.append(Problem(path.name, "missing, so that failures are not known"))
        return []
    try:
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        problems.append(Problem(path.name, f"not readable: {error.strerror}"))
        return []
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", restval="n/a")
        rows = list(reader)
    except csv.Error as error:
        problems.append(Problem(path.name, f"not readable as a table, so that failures are not known: {error}"))
        return []
    absent = {"scan", "method", "state", "reason"} - set(reader.fieldnames or ())
    if absent:
        text = f"has no column {', '.join(sorted(absent))}, so that failures are not known"
        problems.append(Problem(path.name, text))
        return []
    return rows
