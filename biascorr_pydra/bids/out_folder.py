"""Whose files a report or a status is about: the output folder that was given, or those of a study's data sets.

A folder that merely contains an output folder is neither: it is refused, with the name of the right one, before
anything is written into it. A study of several data sets bears a mark: the design that ``evaluate_abide.py`` writes, or
``study.json``, which ``biascorr normalize-cohort`` and ``biascorr report --study`` write.
"""

from __future__ import annotations

import json
from pathlib import Path

from biascorr_pydra.errors import BIDSError
from biascorr_pydra.images.files import write_text

from .dataset import GROUP_FILES

__all__ = ["DESIGN", "STUDY", "mark_study", "output_folders"]

STUDY, DESIGN = "study.json", "evaluation/design.json"
STATUS = GROUP_FILES[0]
#: What a cohort leaves of a scan, where its status table is lost.
RECORDS = ("*_desc-*_metrics.json", "*_normalization.json")
FEW = 5  # folders named in an error


def output_folders(out_dir: str | Path, *, study: bool = False) -> list[Path]:
    """The folder itself if it is a cohort's output folder, or is empty; for a study, its data sets' output folders.

    Parameters
    ----------
    out_dir : path
    study : bool
        Take the output folders in it as one study, marked or not.

    Raises
    ------
    BIDSError
        There is no such folder, or it is neither a cohort's output folder nor a study's; the right one is named if one
        lies in it.
    """
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        advice = "Give the output folder of a cohort that was started."
        raise BIDSError("no such folder", file=out_dir, next_step=advice)
    if _is_output(out_dir):
        return [out_dir]
    inside = sorted(folder for folder in out_dir.iterdir() if not folder.name.startswith(".") and _is_output(folder))
    marked = any((out_dir / mark).is_file() for mark in (STUDY, DESIGN))
    if marked or (study and inside):
        return inside or [out_dir]
    inside = inside or sorted(table.parent for table in out_dir.glob(f"*/*/{STATUS}"))
    if inside or any(not path.name.startswith(".") for path in out_dir.iterdir()):
        raise _refusal(out_dir, inside)
    return [out_dir]


def mark_study(out_dir: str | Path) -> None:
    """Say in a folder that the output folders in it are the data sets of one study.

    Raises
    ------
    OutputError
    """
    words = "The output folders beside this file are the data sets of one study: reported and listed together."
    write_text(Path(out_dir) / STUDY, json.dumps({"GeneratedBy": "biascorr_pydra", "Description": words}) + "\n")


def _is_output(folder: Path) -> bool:
    return (folder / STATUS).is_file() or any(True for record in RECORDS for _ in folder.glob(f"*/sub-*/**/{record}"))


def _refusal(out_dir: Path, inside: list[Path]) -> BIDSError:
    if not inside:
        rule = f"not an output folder: it has no {STATUS} and no records of corrected scans"
        return BIDSError(rule, file=out_dir, next_step="Give the --out-dir of the run.")
    if len(inside) == 1:
        return BIDSError(
            "not an output folder, but a folder that contains one", file=out_dir, next_step=f"Give {inside[0]}."
        )
    names = ", ".join(str(folder) for folder in inside[:FEW]) + (f" and {len(inside) - FEW} more" * (len(inside) > FEW))
    advice = "Give one of these; or `biascorr report FOLDER --study`, if they are the data sets of one study."
    return BIDSError("not an output folder, but a folder of several", file=out_dir, value=names, next_step=advice)
