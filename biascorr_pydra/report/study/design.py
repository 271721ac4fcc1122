"""The design of a multi-site study: which scans it has and which site each belongs to, in ``OUT/evaluation``.

:mod:`.evaluation` and :mod:`.write` read it; they are slow to import and loaded only by those who evaluate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biascorr_pydra.bids import DESIGN
from biascorr_pydra.errors import BIDSError, OutputExistsError
from biascorr_pydra.images.files import write_text

__all__ = ["EvaluationPaths", "check_evaluation", "read_design", "to_json", "write_design"]

GENERATOR = "biascorr_pydra"


@dataclass(frozen=True)
class EvaluationPaths:
    """The files of an evaluation, in ``OUT/evaluation``."""

    folder: Path

    @classmethod
    def inside(cls, out_dir: str | Path) -> EvaluationPaths:
        return cls((Path(out_dir) / DESIGN).parent)

    @property
    def design(self) -> Path:
        return self.folder / Path(DESIGN).name

    @property
    def markdown(self) -> Path:
        return self.folder / "summary.md"

    @property
    def html(self) -> Path:
        return self.folder / "summary.html"

    @property
    def figure(self) -> Path:
        return self.folder / "changes.png"

    def table(self, name: str) -> Path:
        """``scans``, ``sites``, ``overall`` or ``problems``."""
        return self.folder / f"{name}.tsv"


def check_evaluation(out_dir: str | Path, *, overwrite: bool = False) -> None:
    """Refuse an evaluation folder that holds something this package did not write.

    Raises
    ------
    OutputExistsError
    """
    paths = EvaluationPaths.inside(out_dir)
    folder = paths.folder
    if overwrite or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = json.loads(paths.design.read_text())["GeneratedBy"] == GENERATOR
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        advice = "Choose another --out-dir, or add --overwrite."
        raise OutputExistsError("the folder was not written by biascorr_pydra", file=folder, next_step=advice)


def write_design(out_dir: str | Path, design: Mapping[str, Any]) -> Path:
    """Write which scans a study has: "methods", "scans" (folder, scan, participant_id, site, source), "problems" ..."""
    paths = EvaluationPaths.inside(out_dir)
    paths.folder.mkdir(parents=True, exist_ok=True)
    write_text(paths.design, to_json({"GeneratedBy": GENERATOR, **design}))
    return paths.design


def read_design(out_dir: str | Path) -> dict[str, Any]:
    """The design as it was written.

    Raises
    ------
    BIDSError
        There is none, or it is damaged.
    """
    path = EvaluationPaths.inside(out_dir).design
    try:
        design = json.loads(path.read_text())
        design["methods"], design["scans"], design["problems"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        advice = "Run workflows/evaluate_abide.py, which writes it."
        raise BIDSError("no readable design of an evaluation", file=path, value=error, next_step=advice) from error
    return design


def to_json(content: Mapping) -> str:
    """JSON as the evaluation's files have it."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
