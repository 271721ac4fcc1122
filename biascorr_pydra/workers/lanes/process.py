"""The submitting process's end of a lane: starts it, sends it work, and tells how it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import cloudpickle

from biascorr_pydra.resources import THREAD_VARIABLES, Resources

from .wire import receive, send

__all__ = ["Lane", "LaneDiedError"]


class LaneDiedError(RuntimeError):
    """The process that ran a job ended without an answer; ``overtime`` if it was stopped for taking too long."""

    overtime = False
    alone = True


class Lane:
    """One process with some GPUs, or none.

    Parameters
    ----------
    gpus : names of the GPUs that it alone sees
    threads : how many threads its libraries may use, where the environment does not say

    Attributes
    ----------
    peak_gb : highest memory so far, in GB, as of its last answer

    Raises
    ------
    OSError
        There is no process, memory or file descriptor left to start it with.
    """

    def __init__(self, gpus: tuple[str, ...], threads: int):
        self.gpus, self.peak_gb, self._open = gpus, 0.0, True
        with ExitStack() as started:  # whatever fails, nothing of it stays open: descriptors may be what has run out
            self._channel, theirs = socket.socketpair()
            started.callback(self._channel.close)
            with theirs:
                lifeline, self._life = os.pipe()
                started.callback(os.close, self._life)
                try:
                    self.process = _start_process(gpus, threads, theirs.fileno(), lifeline)
                finally:
                    os.close(lifeline)
            started.callback(self._end_process)
            send(self._channel, cloudpickle.dumps(sys.path))
            started.pop_all()

    def call(self, parcels: list[bytes], needs: Resources) -> list[str | None]:
        """Run parcels; for each the error as text, or None. Blocks.

        Raises
        ------
        LaneDiedError
            The process died, or took longer than it may.
        """
        self._channel.settimeout(None if needs.minutes is None else needs.minutes * 60 * len(parcels))
        try:
            send(self._channel, cloudpickle.dumps((parcels, needs.cpus)))
            answer = receive(self._channel)
        except TimeoutError:
            self.kill()
            problem = LaneDiedError(f"took longer than {needs.minutes:g} minutes, and was stopped")
            problem.overtime, problem.alone = True, len(parcels) == 1
            raise problem from None
        except OSError:
            answer = None
        if answer is None:
            raise LaneDiedError(f"the process that ran it {self._end()}")
        errors, self.peak_gb = cloudpickle.loads(answer)
        return errors

    def _end(self) -> str:
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            return "stopped answering"
        if code >= 0:
            return f"ended with code {code}"
        name = signal.Signals(-code).name
        return f"was killed ({name}{'; out of memory?' if name == 'SIGKILL' else ''})"

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        self._end_process()
        self.close()

    def _end_process(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Let the process end by itself: it is idle."""
        if self._open:
            self._open = False
            self._channel.close()
            os.close(self._life)


def _start_process(gpus: tuple[str, ...], threads: int, channel: int, lifeline: int) -> subprocess.Popen[bytes]:
    """Start :mod:`biascorr_pydra.workers.lanes.lane` with its ends of the channel and of the lifeline."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    root = Path(__file__).parents[3]
    if root.name != "site-packages":  # a checkout that is not installed
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH")]))
    for name in THREAD_VARIABLES:
        environment.setdefault(name, str(threads))
    # -P: a file of the folder where the user stands must not stand in for a module.
    # A session of its own: Ctrl-C reaches the submitting process, which then decides.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.lane", str(channel), str(lifeline)],
        pass_fds=(channel, lifeline),
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
