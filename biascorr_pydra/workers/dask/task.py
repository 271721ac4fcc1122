"""What runs inside a Dask worker: one parcel, if the worker is fit for it, and no more often than it may kill workers.

Everything comes as plain values, so that a worker with another version of this package can still say so.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import SoftFileLock

from biascorr_pydra import __version__
from biascorr_pydra.errors import BiasCorrError, ResourceError
from biascorr_pydra.resources import Resources, gpu_ids
from biascorr_pydra.workers.execute import attempt, use_paths, use_threads

__all__ = ["different", "post_mortem", "run_parcel", "versions"]

ATTEMPTS = 3  # how many worker processes one job may take down with it
LATE = "late"

_holders: dict[int, str] = {}


@cache
def versions() -> Mapping[str, str]:
    """What the submitting process and the workers must agree on for jobs to be read on the other side."""
    own = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "biascorr_pydra": __version__}
    for package in ("pydra", "cloudpickle", "distributed"):
        try:
            own[package] = version(package)
        except PackageNotFoundError:
            own[package] = "none"
    return own


def different(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """How the versions of two sides differ, in words; nothing if they do not."""
    names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    return ", ".join(f"{name} {theirs.get(name, 'none')} (here {ours.get(name, 'none')})" for name in names)


def run_parcel(
    parcel: bytes, checksum: str, run_folder: str, needs: dict, wanted_versions: Mapping[str, str], paths: list[str]
) -> str | None:
    """Run a parcel in this Dask worker; the error as text, or None. Its results are in the cache folder.

    Parameters
    ----------
    parcel : bytes, from :func:`biascorr_pydra.workers.execute.pack`
    checksum : the job's, under which the attempts at it are counted
    run_folder : the submitting process's own folder inside the cache folder
    needs : fields of Resources
    wanted_versions : the submitting process's :func:`versions`
    paths : where else to import from
    """
    asked, mark = Resources(**needs), Path(run_folder, checksum)
    try:
        _check(mark.parent, asked, wanted_versions)
    except BiasCorrError as error:
        return f"{type(error).__name__}: {error}\n"
    if (verdict := post_mortem(mark, asked)) is not None:
        return verdict
    _write(mark, f"{_holder(mark.parent)}\n")
    timer = _stop_after(asked.minutes, mark)
    try:
        use_paths(paths)
        with _hidden_gpus(asked):
            use_threads(asked.cpus)
            return attempt(parcel)
    finally:
        if timer is not None:
            timer.cancel()
        mark.unlink(missing_ok=True)


def post_mortem(mark: Path, asked: Resources) -> str | None:
    """Remove the locks of the workers that died of a job; the error, as text, if it is not to be tried again."""
    try:
        before = mark.read_text().splitlines()  # a line for each attempt that has not come to an end: process and host
    except FileNotFoundError:
        return None
    for line in before:
        _release_locks(mark.parent.parent, line.split()[:2])
    if any(line.endswith(LATE) for line in before):
        return f"TimeoutError: took longer than {asked.minutes:g} minutes, and was stopped\n"
    if len(before) < ATTEMPTS:
        return None
    where = ", ".join("{1} (process {0})".format(*line.replace("?", " ").split()) for line in before)
    return (
        f"WorkerDiedError: the Dask worker that ran it was killed, {len(before)} times: on {where}. Out of memory? "
        "Ask for more (--resources STEP.mem_gb=N), or look at the workers' own logs; the other scans go on.\n"
    )


def _check(run_folder: Path, asked: Resources, wanted_versions: Mapping[str, str]) -> None:
    """Refuse what this worker cannot do rightly.

    Raises
    ------
    ResourceError
    """
    from distributed import get_worker

    worker = get_worker()
    where = f"Dask worker {worker.name} on {socket.gethostname()}"
    if difference := different(versions(), wanted_versions):
        raise ResourceError(
            f"{where} has other versions than the submitting process",
            value=difference,
            next_step="Use one environment for both.",
        )
    if not run_folder.is_dir():
        raise ResourceError(
            f"{where} cannot see the cache folder",
            file=run_folder.parent,
            next_step="It must be on a file system that the workers share with this machine; set it with --work-dir.",
        )
    if worker.state.nthreads != 1:
        raise ResourceError(
            f"{where} must run one task at a time: tasks have a working folder of their own",
            value=f"{worker.state.nthreads} threads",
            next_step="Start several workers with --nthreads 1 instead.",
        )
    if asked.gpus and (count := len(gpu_ids())) != asked.gpus:
        raise ResourceError(
            f"{where} must see exactly the {asked.gpus} GPU(s) that the task asks for, so that no two tasks share one",
            value=f"{count} visible (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r})",
            next_step="Start one worker per GPU: CUDA_VISIBLE_DEVICES=0 dask worker ... --resources 'GPU=1'.",
        )


@contextmanager
def _hidden_gpus(asked: Resources) -> Iterator[None]:
    """No GPU for a task that asks for none."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if not asked.gpus:
        os.environ[name] = ""
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _stop_after(minutes: float | None, mark: Path) -> threading.Timer | None:
    """End this process when the time is over: a thread cannot be ended. Dask starts another and tries the job again."""
    if minutes is None:
        return None

    def stop() -> None:
        _write(mark, f"{_holder(mark.parent)} {LATE}\n")
        os._exit(1)

    timer = threading.Timer(minutes * 60, stop)
    timer.daemon = True
    timer.start()
    return timer


def _write(mark: Path, line: str) -> None:
    with open(mark, "a") as stream:
        stream.write(line)


def _holder(folder: Path) -> str:
    """The process as its locks name it: number and host."""
    if os.getpid() not in _holders:
        with SoftFileLock(folder / f"{socket.gethostname()}-{os.getpid()}.lock") as lock:
            _holders[os.getpid()] = " ".join(Path(lock.lock_file).read_text().split()[:2])
    return _holders[os.getpid()]


def _release_locks(cache_root: Path, dead: list[str]) -> None:
    """Remove the locks of a dead worker: from another host, nobody else could tell that it is dead."""
    for lock in cache_root.glob("*.lock"):
        try:
            holder = lock.read_text().split()
        except (OSError, UnicodeDecodeError):
            continue  # just released
        if holder[:2] == dead:
            lock.unlink(missing_ok=True)
