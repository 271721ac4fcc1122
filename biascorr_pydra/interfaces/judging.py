"""Judge what output folders have unjudged, with words on what is going on: for every face that writes a report."""

from __future__ import annotations

from pathlib import Path

import click

from biascorr_pydra import lock
from biascorr_pydra.bids import output_folders
from biascorr_pydra.cohort.judging import judge_rest
from biascorr_pydra.errors import OutputError, RunLockedError

__all__ = ["judge_aloud", "judge_study_aloud"]

STEP = 20  # scans between two lines
UNWRITABLE = "NOT JUDGED  what is not judged yet, because the folder cannot be written to"


def judge_aloud(out_dir: Path, run_id: str | None = None) -> None:
    """Judge the scans of a folder that are not judged, and tell on standard error how many, and what could not be."""
    try:
        for scan, reason in judge_rest(out_dir, run_id=run_id, progress=_tell).items():
            click.echo(f"NOT JUDGED  {scan}\n        {reason}", err=True)
    except OutputError as error:
        click.echo(f"{UNWRITABLE}: {error}", err=True)


def judge_study_aloud(out_dir: Path, *, study: bool = False) -> None:
    """The same for a cohort's folder, or each data set's of a study, where no run is at work that will do it itself.

    Raises
    ------
    BIDSError
        It is no output folder; see :func:`biascorr_pydra.bids.output_folders`.
    """
    for folder in output_folders(out_dir, study=study):
        if lock.alive(out_dir) or lock.alive(folder.resolve().parent):  # a study's run holds the study's folder, too
            continue
        try:
            with lock.hold(folder):
                judge_aloud(folder)
        except RunLockedError:
            continue
        except OutputError as error:
            click.echo(f"{UNWRITABLE}: {error}", err=True)


def _tell(done: int, of: int) -> None:
    if done % STEP == 0 or done == of:
        click.echo(f"judged {done} of {of}", err=True)
