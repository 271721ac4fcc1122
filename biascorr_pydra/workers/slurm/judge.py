"""What follows when a Slurm job ends and some of its work has no outcome: which is tried again, which has failed, why.

=================  ============================================  =================================
state              the parcel it was at                          those it had not begun
=================  ============================================  =================================
CANCELLED          fails: somebody wanted it so                  fail too
TIMEOUT            fails; once more alone if others were before  submitted again
OUT_OF_MEMORY      fails; once more alone if others were before  submitted again
DEADLINE           fails                                         fail too
PREEMPTED          tried again, a bounded number of times        submitted again
NODE_FAIL          tried again, a bounded number of times        submitted again
BOOT_FAIL          tried again, a bounded number of times        submitted again
killed (SIGKILL)   tried again, a bounded number of times        submitted again
crashed (SIGSEGV)  fails                                         submitted again
FAILED, COMPLETED  fails, with what it printed                   submitted again
=================  ============================================  =================================

Where a job ended before it had begun anything, what is said of the parcel it was at holds for all.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from biascorr_pydra.errors import SchedulerError
from biascorr_pydra.resources import Resources

from .client import Standing
from .spool import Entry, Progress

__all__ = ["Again", "Failed", "judge"]

FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
OUT_OF_MEMORY = re.compile(
    r"oom[-_ ]kill|out of memory handler|exceeded (job|step)?\s*memory limit|memory limit exceeded", re.I
)
TAIL_LINES = 15
LOST = {
    "PREEMPTED": "was preempted",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "was on a node that did not start",
    "REVOKED": "was revoked",
    "": "is no longer known to Slurm and has left no result",
}


@dataclass(frozen=True)
class Again:
    """To be submitted once more."""

    starts: int
    alone: bool = False


@dataclass(frozen=True)
class Failed:
    """Not to be submitted again; why."""

    error: str


def judge(
    identity: str,
    ended: Standing,
    progress: Progress,
    missing: dict[int, Entry],
    *,
    needs: Resources,
    most_starts: int,
    log: Path,
) -> dict[int, Again | Failed]:
    """What becomes of each parcel of a task that has no outcome.

    Parameters
    ----------
    identity : the task's id in Slurm
    ended : how it ended
    progress : how far it had come
    missing : the parcels without outcome, by number
    needs : what was asked for
    most_starts : how often a parcel may be begun
    log : what it printed to stderr
    """
    printed = _tail(log)
    if ended.state in ("FAILED", "CANCELLED", "NODE_FAIL") and OUT_OF_MEMORY.search(printed):
        ended = replace(ended, state="OUT_OF_MEMORY")  # as Slurm's older ways of enforcing memory end a job
    current = progress.current if progress.current in missing else None
    nothing_begun = current is None and not progress.starts
    verdicts: dict[int, Again | Failed] = {}
    for number, entry in missing.items():
        starts = entry.starts + progress.starts.get(str(number), 0)
        ending = _Ending(identity, ended, entry.name, needs, printed, log)
        if ended.state in ("CANCELLED", "DEADLINE"):
            verdicts[number] = Failed(ending.text(starts))
        elif number == current:
            verdicts[number] = ending.verdict(starts, most_starts, others_before=progress.before > 0)
        elif nothing_begun:
            verdicts[number] = ending.verdict(starts + 1, most_starts, others_before=False)
        else:
            verdicts[number] = Again(starts)
    return verdicts


@dataclass(frozen=True)
class _Ending:
    """How one parcel's job ended, and what to say of it."""

    identity: str
    ended: Standing
    name: str
    needs: Resources
    printed: str
    log: Path

    def verdict(self, starts: int, most_starts: int, *, others_before: bool) -> Again | Failed:
        if self.ended.state in ("TIMEOUT", "OUT_OF_MEMORY") and others_before:
            return Again(starts, alone=True)  # the others may have used up the time, or hold the memory
        if self._lost and starts < most_starts:
            return Again(starts)
        return Failed(self.text(starts))

    @property
    def _lost(self) -> bool:
        return self.ended.state in LOST or (self.ended.state == "FAILED" and self.ended.signal in FROM_OUTSIDE)

    def text(self, starts: int) -> str:
        rule, value, next_step = self._words(f" {starts} times" if starts > 1 else "")
        problem = SchedulerError(
            f"Slurm job {self.identity} ({self.name}) {rule}", value=value, next_step=f"{next_step} Log: {self.log}"
        )
        return f"{type(problem).__name__}: {problem}"

    def _words(self, times: str) -> tuple[str, str | None, str]:
        state, needs, name = self.ended.state, self.needs, self.name
        if state == "CANCELLED":
            by = f" by user {self.ended.by}" if self.ended.by else ""
            return f"was cancelled{by}", state, "It is not submitted again by itself: run the same command again."
        if state == "TIMEOUT":
            asked = f"its {needs.minutes:g} minutes" if needs.minutes else "the partition's time limit"
            more = f"{2 * needs.minutes:g}" if needs.minutes else "60"
            return f"took longer than {asked}", state, f"Ask for more: --resources {name}.minutes={more}."
        if state == "OUT_OF_MEMORY":
            asked = f"its {needs.mem_gb:g} GB" if needs.mem_gb else "the partition's memory for one job"
            more = f"{2 * needs.mem_gb:g}" if needs.mem_gb else "8"
            return f"needed more than {asked}", state, f"Ask for more: --resources {name}.mem_gb={more}."
        if state == "DEADLINE":
            return "could not end before its deadline", state, "Change --deadline among sbatch_args."
        if state in LOST:
            return f"{LOST[state]}{times}", state or None, "Run again, or allow more with max_requeues."
        if self.ended.signal in FROM_OUTSIDE:
            killed = f"was killed{times}; out of memory?"
            return killed, _signal(self.ended.signal), f"Run again, or give it more: --resources {name}.mem_gb=..."
        if self.ended.signal:
            return (
                "crashed",
                f"{_signal(self.ended.signal)}. {self.printed}".strip(),
                "The task's own code is at fault.",
            )
        if state == "COMPLETED":
            return (
                "ended without a result that can be seen from here",
                self.printed or None,
                "Is the work folder on a file system that the nodes share with this machine?",
            )
        code = f"exit code {self.ended.code}" if self.ended.code is not None else state
        return "ended early", f"{code}. {self.printed or 'It printed nothing'}", "Mend that, and run again."


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(log: Path) -> str:
    """The end of what a job printed to stderr."""
    try:
        with open(log, "rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - 20_000))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])
