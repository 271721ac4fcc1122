"""Slurm's commands, and what they answer: submit, list, account, cancel, and what the nodes have.

Blocks: call it in a thread. Every answer about jobs is for many at once.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from biascorr_pydra.errors import SchedulerError

__all__ = ["ENDED", "NodeKind", "RefusedError", "Slurm", "Standing", "SubmitLimitError", "UnansweredError", "task_id"]

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED"}
    | {"OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED"}
)
# What the commands say when slurmctld or slurmdbd is busy, restarting or out of reach for a while.
TEMPORARY = re.compile(
    r"socket timed out|unable to contact|not responding|connection (refused|timed out|reset)|connect failure|"
    r"temporarily unable|resource temporarily unavailable|zero bytes|send/recv|communication|try again|"
    r"in standby mode|protocol authentication error|problem talking to the database",
    re.IGNORECASE,
)
LIMIT = re.compile(r"submit ?job|submit limit|maximum number of jobs|MaxJobCount|job count limit", re.IGNORECASE)
WAITS_S = (1.0, 30.0)  # between two tries where Slurm does not answer: at first, and at most
COMMAND_S = 120  # a command that takes longer counts as not answered
MAX_ARRAY = 1001  # Slurm's own default
FORMAT_SINFO = "%R|%P|%D|%c|%m|%G|%l"


class UnansweredError(SchedulerError):
    """Slurm did not answer; it may later."""


class RefusedError(SchedulerError):
    """Slurm does not take the job as it is asked for."""


class SubmitLimitError(RefusedError):
    """Slurm takes no more jobs of this user for now."""


@dataclass(frozen=True)
class Standing:
    """Where one job, or one task of a job array, stands.

    Attributes
    ----------
    state : Slurm's name, as in COMPLETED; "" where Slurm no longer knows the job
    reason : why it is pending
    code, signal : what its process ended with, where known
    by : who cancelled it, as Slurm says it
    """

    state: str
    reason: str = ""
    code: int | None = None
    signal: int | None = None
    by: str = ""

    @property
    def over(self) -> bool:
        """Whether it runs no more and will not."""
        return self.state in ENDED or not self.state


@dataclass(frozen=True)
class NodeKind:
    """Nodes of one partition that are alike: how many, and what each has.

    Memory is in 10^9 bytes; minutes is the partition's time limit, None where there is none.
    """

    partition: str
    default: bool
    count: int
    cpus: int
    gpus: int
    mem_gb: float
    minutes: float | None


def task_id(job_id: str, index: int | None) -> str:
    """The name of a task of a job array, or of a job that is none."""
    return job_id if index is None else f"{job_id}_{index}"


class Slurm:
    """The commands of the Slurm that is configured on this machine.

    Attributes
    ----------
    calls : Counter
        How often each command was run.
    """

    def __init__(self):
        self.calls: Counter = Counter()
        self._one_at_a_time = threading.Lock()
        self._accounting = True
        self._stopped = threading.Event()
        # A driver inside a job of its own must not hand that job's numbers on; SLURM_CONF says where Slurm is.
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}

    def submit(self, arguments: list[str]) -> str:
        """Submit; the job's id.

        Raises
        ------
        UnansweredError
            It may have been taken all the same: look for it by name.
        SubmitLimitError, RefusedError
        """
        code, out, err = self._run("sbatch", "--parsable", *arguments)
        job_id = re.match(r"\d+", out.strip())
        if code == 0 and job_id:
            return job_id.group()
        text = " ".join((err or out).split()) or f"sbatch ended with code {code} and no word"
        if TEMPORARY.search(text):
            raise UnansweredError("Slurm did not answer sbatch", value=text)
        refused = SubmitLimitError if LIMIT.search(text) else RefusedError
        raise refused("Slurm did not take the job", value=text)

    def standings(self, job_ids: Iterable[str]) -> dict[str, Standing]:
        """Of every task of these jobs that Slurm still lists, by one squeue."""
        listed = ",".join(sorted(set(job_ids)))
        if not listed:
            return {}
        code, out, err = self._run("squeue", "-h", "-r", "-t", "all", "-o", "%F|%K|%T|%r", "-j", listed)
        if code != 0 and "invalid job id" not in err.lower():
            raise UnansweredError("Slurm did not answer squeue", value=" ".join(err.split()) or f"code {code}")
        standings = {}
        for line in out.splitlines():
            parts = line.strip().split("|", 3)
            if len(parts) == 4:
                job, index, state, reason = parts
                standings[task_id(job, int(index) if index.isdigit() else None)] = Standing(_state(state), reason)
        return standings

    def accounts(self, job_ids: Iterable[str]) -> dict[str, Standing]:
        """How tasks of these jobs ended, from the accounting, by one sacct; empty where there is none."""
        listed = ",".join(sorted(set(job_ids)))
        if not self._accounting or not listed:
            return {}
        try:
            code, out, err = self._run("sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", listed)
        except SchedulerError as problem:
            code, out, err = 1, "", str(problem)
        if code != 0:
            if not TEMPORARY.search(err):
                self._accounting = False
            logger.warning(
                "sacct gives no answer (%s): how jobs ended is taken from squeue, scontrol and their own files.",
                " ".join(err.split()) or f"code {code}",
            )
            return {}
        lines = [line.strip().split("|") for line in out.splitlines()]
        return {parts[0]: _standing(parts[1], parts[2]) for parts in lines if len(parts) == 3}

    def shown(self, job_id: str) -> dict[str, Standing]:
        """How the tasks of one job stand, from scontrol: where a job died that the accounting does not know."""
        code, out, _ = self._run("scontrol", "-o", "show", "job", job_id)
        standings = {}
        for line in out.splitlines() if code == 0 else ():
            fields = dict(re.findall(r"\b(JobId|ArrayTaskId|JobState|ExitCode)=(\S+)", line))
            if "JobState" in fields:
                index = fields.get("ArrayTaskId", "")
                standing = _standing(fields["JobState"], fields.get("ExitCode", ""))
                standings[task_id(job_id, int(index) if index.isdigit() else None)] = standing
        return standings

    def find(self, name: str) -> str | None:
        """The id of the job of this name, running, waiting or over; None if Slurm knows none."""
        code, out, err = self._run("squeue", "-h", "-t", "all", "-n", name, "-o", "%F")
        if code != 0:
            raise UnansweredError("Slurm did not answer squeue", value=" ".join(err.split()))
        if not out.strip() and self._accounting:
            code, out, _ = self._run("sacct", "-n", "-X", "-P", "-S", "now-7days", "--name", name, "-o", "JobID")
        job_id = re.match(r"\d+", out.strip())
        return job_id.group() if code == 0 and job_id else None

    def cancel(self, job_ids: Iterable[str]) -> None:
        """End jobs; those that are over already are no error."""
        if ids := sorted(set(job_ids)):
            code, _, err = self._run("scancel", *ids)
            if code != 0 and "invalid job id" not in err.lower():
                logger.warning("scancel %s: %s", " ".join(ids), " ".join(err.split()))

    def start(self) -> None:
        """Submit, also after :meth:`stop`."""
        self._stopped.clear()

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopped.set()

    def nodes(self) -> list[NodeKind]:
        """What the partitions have, by one sinfo; nodes that are down count: they may come back."""
        code, out, err = self._run("sinfo", "-h", "-e", "-o", FORMAT_SINFO)
        if code != 0:
            raise UnansweredError("Slurm did not answer sinfo", value=" ".join(err.split()) or f"code {code}")
        return [_node_kind(line.strip()) for line in out.splitlines() if line.count("|") == FORMAT_SINFO.count("|")]

    def max_array(self) -> int:
        """How many tasks one job array may have; 1 where arrays are switched off."""
        code, out, _ = self._run("scontrol", "show", "config")
        size = re.search(r"^MaxArraySize\s*=\s*(\d+)", out, re.MULTILINE) if code == 0 else None
        return max(1, (int(size.group(1)) if size else MAX_ARRAY) - 1)

    def patiently(self, ask: Callable[..., Answer], *arguments: Any, patience_s: float) -> Answer:
        """Call ``ask``, again while Slurm does not answer, for so long.

        Raises
        ------
        UnansweredError
            It has not answered for so long, or submitting was stopped meanwhile.
        """
        began, wait = time.monotonic(), WAITS_S[0]
        while True:
            try:
                return ask(*arguments)
            except UnansweredError as problem:
                if time.monotonic() - began + wait > patience_s or self._stopped.is_set():
                    raise
                logger.warning("%s Trying again in %.0f s.", problem, wait)
                self._stopped.wait(wait)
                wait = min(2 * wait, WAITS_S[1])

    def _run(self, command: str, *arguments: str) -> tuple[int, str, str]:
        if shutil.which(command) is None:
            raise SchedulerError(
                f"Slurm's command {command} is not on this machine",
                next_step="Run on a login node of the cluster, or choose another worker (--worker lanes).",
            )
        with self._one_at_a_time:
            if command == "sbatch" and self._stopped.is_set():
                raise SchedulerError("the run is being ended: nothing more is submitted")
            self.calls[command] += 1
            try:
                # A session of its own: Ctrl-C reaches the driver, which then cancels what it has submitted.
                done = subprocess.run(
                    [command, *arguments],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=COMMAND_S,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except subprocess.TimeoutExpired as error:
                raise UnansweredError(f"Slurm's {command} did not answer within {COMMAND_S} s") from error
        return done.returncode, done.stdout, done.stderr


def _state(text: str) -> str:
    return text.split()[0].rstrip("+") if text.split() else ""


def _standing(state: str, exit_code: str) -> Standing:
    code, signal = (int(part) if part.isdigit() else None for part in exit_code.partition(":")[::2])
    if code is not None and code > 128 and not signal:
        code, signal = 0, code - 128  # as a shell tells it
    by = state.partition(" by ")[2].strip()
    return Standing(_state(state), code=code, signal=signal or None, by=by)


def _node_kind(line: str) -> NodeKind:
    partition, shown, count, cpus, memory, gres, limit = line.split("|")
    return NodeKind(
        partition=partition,
        default=shown.endswith("*"),
        count=_number(count),
        cpus=_number(cpus),
        gpus=sum(int(number) for number in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres)),
        mem_gb=round(_number(memory) * 2**20 / 1e9, 1),
        minutes=_minutes(limit),
    )


def _number(text: str) -> int:
    """As sinfo writes it: 64, 64+ where nodes differ, 1.5K."""
    number = re.match(r"([\d.]*)([KM]?)", text)
    assert number is not None  # both parts may be empty
    digits, unit = number.groups()
    return round(float(digits or 0) * {"": 1, "K": 1024, "M": 1024**2}[unit])


def _minutes(limit: str) -> float | None:
    """Slurm's [days-]hours:minutes:seconds, or None for what is no number (infinite, n/a)."""
    parts = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if not parts:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60
