"""A lane: one long-lived process that runs one job after another, with the devices it was given.

    python -m biascorr_pydra.workers.lanes.lane SOCKET LIFELINE

It ends when its socket closes. While a job computes, a thread watches the lifeline, a pipe whose other end only the
submitting process holds: when that process dies, however, the lane goes with it instead of working on for nobody.
What a job loads (networks, libraries) stays loaded for the next one.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import threading
from contextlib import AbstractContextManager, nullcontext

import cloudpickle

from biascorr_pydra.workers.execute import attempt, describe_error, open_parcel, use_paths, use_threads

from .wire import receive, send

OOM_SCORE = "500"  # where memory runs out, a lane is to go before the process that can start another


def main(channel: socket.socket, lifeline: int) -> None:
    """Take parcels of work from a channel and answer each, until the channel or the lifeline ends."""
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _volunteer()
    use_paths(cloudpickle.loads(receive(channel)))
    while (message := receive(channel)) is not None:
        parcels, cpus = cloudpickle.loads(message)
        use_threads(cpus)
        with _common_work(parcels):
            errors = [attempt(parcel) for parcel in parcels]
        send(channel, cloudpickle.dumps((errors, _peak_gb())))


def _common_work(parcels: list[bytes]) -> AbstractContextManager[object]:
    """Do what the tasks have in common, at once; its results are kept inside the ``with`` block that they run in.

    Whatever fails here fails again, and is told, where each runs alone.
    """
    if len(parcels) < 2:
        return nullcontext()
    try:
        tasks = [open_parcel(parcel)[0].task for parcel in parcels]
        return type(tasks[0]).together(tasks)
    except Exception as error:
        print(f"lane: the tasks run one by one: {describe_error(error)}", file=sys.stderr)
        return nullcontext()


def _peak_gb() -> float:
    """Highest memory of this process so far, in GB (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


def _volunteer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as stream:
            stream.write(OOM_SCORE)
    except OSError:
        return  # not Linux, or not allowed: the kernel chooses as it does


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
