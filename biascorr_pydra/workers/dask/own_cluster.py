"""The submitting process's end of a Dask cluster of its own on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import Any

from biascorr_pydra.errors import ResourceError
from biascorr_pydra.resources import THREAD_VARIABLES

__all__ = ["OwnCluster"]


class OwnCluster:
    """A cluster of this machine's own, in processes of its own; see :mod:`biascorr_pydra.workers.dask.local`.

    Parameters
    ----------
    workers : what each worker is given; see :mod:`biascorr_pydra.workers.dask.local`
    threads : how many threads the libraries in each of them may use, where the environment does not say

    Attributes
    ----------
    address : the scheduler's

    Raises
    ------
    ResourceError
        It did not start.
    OSError
        There is no process, memory or file descriptor left to start it with.
    """

    def __init__(self, workers: list[dict[str, Any]], threads: int):
        with ExitStack() as started:  # whatever fails, nothing of it stays open
            self._folder = tempfile.mkdtemp(prefix="biascorr-dask-")
            started.callback(shutil.rmtree, self._folder, ignore_errors=True)
            lifeline, self._life = os.pipe()
            started.callback(os.close, self._life)
            try:
                self._process = self._start(lifeline, workers, threads)
            finally:
                os.close(lifeline)
            started.pop_all()
        assert self._process.stdout is not None
        self._answers = self._process.stdout
        self.address = self._answers.readline().strip()
        if not self.address:
            self.close(at_once=True)
            raise ResourceError("the local Dask cluster did not start", next_step="Its own words are above.")

    def _start(self, lifeline: int, workers: list[dict[str, Any]], threads: int) -> subprocess.Popen[str]:
        spec = json.dumps({"workers": workers, "folder": self._folder})
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # each GPU worker is given its own
        for name in THREAD_VARIABLES:
            environment.setdefault(name, str(threads))
        # A session of its own: Ctrl-C reaches the submitting process, which then decides.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.local", str(lifeline), spec],
            pass_fds=(lifeline,),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def close(self, *, at_once: bool = False) -> None:
        """End it; ``at_once`` where workers may be in the middle of a task."""
        os.close(self._life)
        try:
            self._process.wait(timeout=0 if at_once else 10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._answers.close()
        shutil.rmtree(self._folder, ignore_errors=True)
