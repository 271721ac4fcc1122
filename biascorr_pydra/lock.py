"""One run at a time in a folder, and what is known of the last one.

A run holds ``FOLDER/.biascorr/lock`` while it lasts: a lock of the operating system, which goes with the process,
however that ends (where a file system has none, a file with the holder's process and host). ``run.json`` beside it says
what is going on. Where it is found without a holder, the run before was killed: what it left is put in order, and the
next run goes on under its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from biascorr_pydra.errors import OutputError, RunLockedError
from biascorr_pydra.images.files import is_temporary, write_json

__all__ = [
    "FOLDER",
    "alive",
    "current",
    "describe",
    "exclusive",
    "hold",
    "remove_stale_locks",
    "remove_temporary_files",
]

FOLDER = ".biascorr"
EMPTY_LOCK_S = 1.0


@contextmanager
def exclusive(folder: Path, facts: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Hold a folder for one run; yields what is known of a run that was killed here before, or None.

    Parameters
    ----------
    folder : made if it is not there
    facts : JSON-serialisable, kept in run.json while the run lasts; process, host and start are added

    Raises
    ------
    RunLockedError
        Another run is at work in this folder.
    OutputError
        The folder cannot be written to.
    """
    with hold(folder):
        before, facts_file = current(folder), folder / FOLDER / "run.json"
        write_json(facts_file, {**facts, **_this_process()})
        yield before
        facts_file.unlink(missing_ok=True)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder against runs, for work that is none itself: what is known of a run that was killed here stays.

    Raises
    ------
    RunLockedError, OutputError
        As :func:`exclusive` does.
    """
    place = folder / FOLDER
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / "lock")
        lock.acquire(timeout=1)  # `alive` holds it for a moment
    except Timeout:
        raise RunLockedError(
            "another run is at work in this folder",
            file=folder,
            value=describe(current(folder)) or "no word of which",
            next_step="Wait for it to end, or give another folder.",
        ) from None
    except OSError as error:
        raise OutputError(
            "the folder cannot be written to", file=place, value=error.strerror, next_step="Check its permissions."
        ) from error
    try:
        yield
    finally:
        (place / "lock").unlink(missing_ok=True)  # while it is still held; whoever waited for it looks again
        lock.release()


def current(folder: Path) -> dict[str, Any] | None:
    """What is known of the run that is at work in a folder, or was killed there."""
    try:
        facts = json.loads((Path(folder) / FOLDER / "run.json").read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def alive(folder: Path) -> bool:
    """Whether a run holds the folder now; changes nothing."""
    path = Path(folder) / FOLDER / "lock"
    try:
        with open(path, "rb") as stream:  # another user's run cannot be opened for writing
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def describe(facts: Mapping[str, Any] | None) -> str:
    """A run in words: process, host and start."""
    if not facts:
        return ""
    return f"process {facts.get('pid')} on {facts.get('host')}, since {facts.get('started')}"


def _this_process() -> dict[str, Any]:
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "command": sys.argv}


# --- what a killed run leaves


def remove_stale_locks(cache_root: Path, *, all_of_them: bool = False) -> int:
    """Remove the engine's lock files whose process is gone from this host; the number removed.

    A lock file holds the process and the host of its owner. Those of other hosts are left: their jobs may be running.
    One that is empty belongs to a process that was killed in the instant between making and writing it: nobody would
    ever let go of it. ``all_of_them``: where nobody can be at work, whatever the host's name was when they were made.
    """
    removed = 0
    for path in cache_root.glob("*.lock"):
        try:
            owner, _, rest = path.read_text().partition("\n")
            if all_of_them:
                gone = True
            elif owner:
                gone = rest.partition("\n")[0] == socket.gethostname() and not _runs(int(owner))
            else:
                gone = time.time() - path.stat().st_mtime > EMPTY_LOCK_S
        except (OSError, ValueError):
            continue
        if gone:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove_temporary_files(root: Path, *, leave: Path) -> int:
    """Remove what a killed process was still writing under a folder, ``leave`` excepted; the number removed.

    Only while no run is at work there.
    """
    removed = 0
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if Path(folder, name).resolve() != leave]
        for name in filter(is_temporary, files):
            Path(folder, name).unlink(missing_ok=True)
            removed += 1
    return removed
