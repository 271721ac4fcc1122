"""Whether a report shows what is there: its files, and a hash of all that it was made from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from biascorr_pydra import __version__
from biascorr_pydra.bids import make_folder
from biascorr_pydra.images.files import sha256, write_text
from biascorr_pydra.lock import FOLDER

from .paths import PAGES, RATINGS_TABLE
from .sources import participants_files

__all__ = ["ReportPaths", "inputs_of", "is_up_to_date", "keep_state"]


@dataclass(frozen=True)
class ReportPaths:
    """The main files that :func:`biascorr_pydra.report.write_report` writes."""

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


def is_up_to_date(out_dir: str | Path) -> bool:
    """Whether the report shows what is there now: the same outcomes, and every record as it was when it was made.

    And the participants of the source data set, whose sites it shows, and the readers' ratings.

    Writes nothing.
    """
    out_dir = Path(out_dir)
    try:
        known = _state_file(out_dir).read_text()
    except OSError:
        return False
    return all(path.is_file() for path in vars(ReportPaths.inside(out_dir)).values()) and known == _state(
        inputs_of(out_dir), out_dir
    )


def keep_state(out_dir: Path, inputs: str) -> None:
    """Remember what a report was made from: ``inputs`` before it was made, and the ratings, which it has written.

    Raises
    ------
    OutputError
    """
    make_folder(out_dir / FOLDER)
    write_text(_state_file(out_dir), _state(inputs, out_dir))


def _state_file(out_dir: Path) -> Path:
    return out_dir / FOLDER / "report.sha256"


def _state(inputs: str, out_dir: Path) -> str:
    ratings = out_dir / RATINGS_TABLE
    return f"{inputs} {sha256(ratings) if ratings.is_file() else 'no ratings'}"


def inputs_of(out_dir: Path) -> str:
    """All that a report is made from but its ratings, by size and time, as one hash.

    Done now or before makes no difference.
    """
    digest = hashlib.sha256(__version__.encode())
    status = out_dir / "status.tsv"
    if status.is_file():
        digest.update(_content(status).replace(b"\tdone\t", b"\tcached\t"))
    for path in participants_files(out_dir):
        digest.update(_content(path))
    for path in sorted(out_dir.glob("*/sub-*/**/*.json")):
        stat = path.stat()
        digest.update(f"{path.relative_to(out_dir)} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    """A file's bytes; of one that cannot be read, why: whoever reads it for the report says so."""
    try:
        return path.read_bytes()
    except OSError as error:
        return f"unreadable: {error.strerror}".encode()
