"""The group report: ``metrics.tsv`` with its data dictionary, and ``report.html``, one file that needs no network.

Everything is read from written files, so a report can be made again at any time, also while a cohort is still running.
Missing and damaged files are reported in the page; they never stop it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..image import write_atomic
from ..runs import FOLDER
from .collect import collect
from .design import EvaluationPaths, check_evaluation, write_design
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
    """The files that :func:`write_report` writes."""

    html: Path
    metrics_tsv: Path
    metrics_json: Path

    @classmethod
    def inside(cls, out_dir: str | Path) -> ReportPaths:
        """Where they are in the output folder of a cohort."""
        out_dir = Path(out_dir)
        return cls(out_dir / "report.html", out_dir / "metrics.tsv", out_dir / "metrics.json")


def write_report(out_dir: str | Path) -> ReportPaths:
    """Write ``metrics.tsv``, ``metrics.json`` and ``report.html`` into the output folder of a cohort.

    Parameters
    ----------
    out_dir : path
        Folder with one derivative data set per method, and ``status.tsv`` if the cohort has written it. What is there
        is reported: a cohort may be unfinished, and files may be missing or damaged.

    Returns
    -------
    ReportPaths
        Earlier reports at these paths are replaced.

    Raises
    ------
    BIDSError
        There is no such folder.
    OutputError
        A file cannot be written.
    """
    from .page import render  # matplotlib and jinja2 are loaded only by those who make a report

    out_dir = Path(out_dir)
    paths = ReportPaths.inside(out_dir)
    cohort = collect(out_dir)
    table = columns(cohort)
    _write(paths.metrics_tsv, to_tsv(cohort, table))
    _write(paths.metrics_json, json.dumps(data_dictionary(table), indent=2, ensure_ascii=False) + "\n")
    _write(paths.html, render(cohort))
    _write(_state_file(out_dir), _state(out_dir))
    return paths


def is_up_to_date(out_dir: str | Path) -> bool:
    """Whether the report shows what is there now: the same outcomes, and every record as it was when it was made."""
    out_dir = Path(out_dir)
    try:
        known = _state_file(out_dir).read_text()
    except OSError:
        return False
    return all(path.is_file() for path in vars(ReportPaths.inside(out_dir)).values()) and known == _state(out_dir)


def _state_file(out_dir: Path) -> Path:
    (out_dir / FOLDER).mkdir(exist_ok=True)
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


def _write(file: Path, text: str) -> None:
    # Names that are not valid Unicode reach Python as surrogates; they are shown, not fatal.
    write_atomic(file, lambda stream: stream.write(text.encode("utf-8", "backslashreplace")))
