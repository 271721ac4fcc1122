"""One scan as one method left it, as it was read from written files; and what was wrong with them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biascorr_pydra.judge import ACQUIRED

from .judged import JudgedScan, PairOfImages

__all__ = ["Problem", "Result", "natural", "read_json", "source_of"]

_SOURCE = re.compile(r"^bids:[^:]*:")


@dataclass(frozen=True)
class Problem:
    """Something missing or damaged: where, and what."""

    file: str
    text: str


@dataclass
class Result:
    """One scan corrected (or not) by one method.

    Attributes
    ----------
    scan : str
        The source image's path relative to its data set.
    method : str
    state : str
        "done", "cached" (done by an earlier run), "rejected" (by the gate), "failed", "waiting" (for a run that has not
        reached it), "skipped" (not an image to correct), or "n/a" where status.tsv does not know it.
    reason : str
        Why it failed, or why the field was not applied; "n/a" otherwise.
    record : dict
        The metrics file; empty where there is none. "before" and "after" are the judge's numbers, "own_before" and
        "own_after" those on the tissue of the method's own segmentation.
    sidecar : dict
        The corrected image's sidecar; empty where there is none.
    files : dict
        Paths of the images that exist, by "corrected", "bias", "rejected", "mask" and "dseg".
    root : path
        The cohort's output folder.
    folder : str
        The name of that folder in a study of several; empty where the study is one data set.
    site : str or None
        Where it was acquired, if anything says so; see :mod:`biascorr_pydra.report.study.study`.
    judged : JudgedScan
        What the judge said of the scan, for all its methods.
    outdated : bool
        Whether it was made with other settings than those of the run that is to make it again.
    """

    scan: str
    method: str
    state: str = "n/a"
    reason: str = "n/a"
    record: dict[str, Any] = field(default_factory=dict)
    sidecar: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    root: Path = Path()
    folder: str = ""
    site: str | None = None
    judged: JudgedScan = field(default_factory=lambda: JudgedScan("nothing was judged"))
    outdated: bool = False

    @property
    def place(self) -> str:
        """The scan's name in the whole study."""
        return f"{self.folder}/{self.scan}" if self.folder else self.scan

    @property
    def name(self) -> str:
        """The image's file name without extension."""
        return self.scan.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".nii")

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    @property
    def verdict(self) -> str | None:
        """What the gate said of the field; None where no metrics file tells."""
        return self.part("gate").get("verdict")

    @property
    def verdict_reason(self) -> str:
        """Why the field was not accepted; empty if it was."""
        reasons = self.part("gate").get("reasons")
        return "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""

    @property
    def subject(self) -> str | None:
        return _entity(self.scan, "sub")

    @property
    def session(self) -> str | None:
        return _entity(self.scan, "ses")

    @property
    def suffix(self) -> str:
        """The contrast as BIDS names it (T1w, T2w, FLAIR ...)."""
        return self.scan.rsplit("/", 1)[-1].split(".", 1)[0].rsplit("_", 1)[-1]

    @property
    def against_acquired(self) -> PairOfImages | None:
        """What the judge said of the delivered image against the acquired one; None where it did not judge."""
        return self.judged.compare(ACQUIRED, self.method) if self.record else None

    def part(self, key: str) -> dict[str, Any]:
        """A dictionary inside the metrics file; empty where it is not one."""
        value = self.record.get(key)
        return value if isinstance(value, dict) else {}

    def number(self, part: str, key: str) -> float | None:
        """A finite number of the metrics file, or None."""
        value = self.part(part).get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value)

    def texts(self, key: str) -> list[str]:
        """A list of texts of the metrics file, whatever is in it."""
        value = self.record.get(key)
        return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []


def read_json(path: Path, name: str, problems: list[Problem]) -> dict | None:
    """The object in a JSON file; None, and a problem more, where there is none."""
    if not path.is_file():
        problems.append(Problem(name, "missing"))
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(Problem(name, f"not readable as JSON: {error}"))
        return None
    if not isinstance(content, dict):
        problems.append(Problem(name, f"a JSON object is needed, not a {type(content).__name__}"))
        return None
    return content


def source_of(uri: str) -> str:
    """The path of a source inside its data set, from a BIDS URI."""
    return _SOURCE.sub("", uri)


def _entity(scan: str, key: str) -> str | None:
    match = re.search(rf"(?:^|[/_]){key}-([^/_.]+)", scan)
    return match[1] if match else None


def natural(text: str) -> list:
    """Sort key that puts sub-2 before sub-10."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 20 else (1, 0, part) for part in re.split(r"(\d+)", text)
    ]
