"""A Dask cluster of this machine's own: a scheduler and its workers on loopback, for one submitting process.

    python -m biascorr_pydra.workers.dask.local LIFELINE SPEC

SPEC is JSON: the workers' names, environments, resources and memory limits, and a folder for Dask's own files. The
scheduler's address is printed when every worker is there. It all ends when the lifeline closes, a pipe whose other end
only the submitting process holds: when that process dies, however, nothing is left behind. Being a process of its own,
it needs no ``if __name__ == "__main__"`` in the user's script, and what is submitted goes the way it would go to any
other cluster.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import threading

SETTINGS = {
    # A worker that holds much memory between tasks (networks, libraries) must not stop taking work; one that is over
    # its limit is replaced.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
}
GRACE_S = 8.0


async def serve(lifeline: int, spec: dict) -> None:
    """Start the cluster, say where it is, and end it when the lifeline closes."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    threading.Thread(target=_watch, args=(lifeline, loop, ended), daemon=True).start()
    workers = {
        worker.pop("name"): {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "dashboard": False,
                "host": "127.0.0.1",
                "local_directory": spec["folder"],
                "silence_logs": logging.ERROR,
                **worker,
            },
        }
        for worker in spec["workers"]
    }
    web = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}  # Dask serves its own health there all the same
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, **web}}
    with dask.config.set(SETTINGS | {"temporary-directory": spec["folder"]}):
        async with SpecCluster(workers, scheduler, asynchronous=True, silence_logs=logging.ERROR) as cluster:
            await cluster.scheduler_comm.identity()
            print(cluster.scheduler_address, flush=True)
            await ended.wait()


def _watch(lifeline: int, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    os.read(lifeline, 1)
    # A worker in the middle of a task does not stop for being asked to.
    threading.Timer(GRACE_S, os.killpg, (os.getpgid(0), signal.SIGKILL)).start()
    loop.call_soon_threadsafe(ended.set)


if __name__ == "__main__":
    chosen = json.loads(sys.argv[2])
    try:
        asyncio.run(serve(int(sys.argv[1]), chosen))
    finally:
        shutil.rmtree(chosen["folder"], ignore_errors=True)
    os._exit(0)
