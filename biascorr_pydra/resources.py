"""What a task needs to run, said on the task: CPUs, GPUs, memory, time. Read by the workers of this package.

Shaped like the proposal in Pydra's tracker (nipype/pydra#830): a fixed spec or a function of the task, on the task's
class or on one node of a workflow, overridden by node name when the workflow is submitted. Nothing here imports an
engine, so that the spec can be read and tested without one.

A spec is kept as a class attribute, which Pydra does not hash: asking for more memory repeats no work.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import InvalidParameterError, ResourceError

__all__ = [
    "DEVICES",
    "THREAD_VARIABLES",
    "Resources",
    "available",
    "chosen_gpus",
    "declared",
    "parse_overrides",
    "requires",
    "resolve_device",
    "together",
]

ATTRIBUTE, TOGETHER = "resources", "together"  # of a task's class
DEVICES = ("auto", "cpu", "cuda")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",  # antspyx takes all cores without it
)
"""The environment variables that say how many threads a process's libraries may use; read when they are loaded."""


@dataclass(frozen=True)
class Resources:
    """What one task needs while it runs.

    Attributes
    ----------
    cpus : int
        CPU cores, 1 or more.
    gpus : int
        GPUs of its own, 0 or more.
    mem_gb : float or None
        Memory in GB (10^9 bytes); None if not stated.
    minutes : float or None
        Wall-clock limit; None for no limit.

    Raises
    ------
    InvalidParameterError
        A number outside its range.
    """

    cpus: int = 1
    gpus: int = 0
    mem_gb: float | None = None
    minutes: float | None = None

    def __post_init__(self):
        for name, least, kind in (("cpus", 1, int), ("gpus", 0, int), ("mem_gb", 0, float), ("minutes", 0, float)):
            value = getattr(self, name)
            if value is None and kind is float:
                continue
            allowed = int if kind is int else (int, float)
            if not isinstance(value, allowed) or isinstance(value, bool) or not least <= value < float("inf"):
                raise InvalidParameterError(
                    f"{name} is {'a whole number' if kind is int else 'a number'}, {least} or more", value=repr(value)
                )
            if kind is float and value == 0:
                raise InvalidParameterError(f"{name} is more than 0", value=repr(value))

    def __str__(self) -> str:
        words = [f"{self.cpus} CPU" + "s" * (self.cpus != 1), f"{self.gpus} GPU" + "s" * (self.gpus != 1)]
        if self.mem_gb is not None:
            words.append(f"{self.mem_gb:g} GB")
        if self.minutes is not None:
            words.append(f"{self.minutes:g} min")
        return ", ".join(words)

    def updated(self, changes: Mapping[str, Any]) -> Resources:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def beyond(self, capacity: Resources) -> list[str]:
        """What is asked for that ``capacity`` can never give, in words; its None means no limit there."""
        over = []
        for name, unit in (("cpus", "CPUs"), ("gpus", "GPUs"), ("mem_gb", "GB of memory"), ("minutes", "minutes")):
            asked, most = getattr(self, name), getattr(capacity, name)
            if asked is not None and most is not None and asked > most:
                over.append(f"{asked:g} {unit} (there are {most:g})")
        return over

    def check(self, capacity: Resources, *, task: str, where: str) -> None:
        """Refuse at once what can never be given.

        Raises
        ------
        ResourceError
            With what is asked and what there is.
        """
        if over := self.beyond(capacity):
            lower = f"--resources {task}.{_spelled(self, capacity)}"
            raise ResourceError(
                f"task {task!r} asks for more than {where} can ever give",
                value=", ".join(over),
                next_step=f"Lower it, for instance {lower}, or use another worker.",
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def _spelled(asked: Resources, capacity: Resources) -> str:
    """The fields that are too large, as an override that fits."""
    return ",".join(
        f"{f.name}={getattr(capacity, f.name):g}"
        for f in fields(Resources)
        if None not in (getattr(asked, f.name), getattr(capacity, f.name))
        and getattr(asked, f.name) > getattr(capacity, f.name)
    )


Spec = Resources | Callable[[Any], Resources | None]


def requires(spec: Spec | None = None, /, **numbers) -> Callable[[type], type]:
    """Class decorator that says what a task needs: above the engine's own decorator.

    Parameters
    ----------
    spec : Resources, or function of the task that returns Resources (None: nothing said)
    **numbers
        The fields of :class:`Resources`, instead of ``spec``.

    On a workflow it means more: the whole workflow is one piece of work, placed once and run from end to end in one
    process, with what the spec asks for. Where the function returns None its steps are placed one by one.

    Examples
    --------
    >>> @requires(cpus=2, mem_gb=4)
    ... class Segment: ...
    >>> declared(Segment())
    Resources(cpus=2, gpus=0, mem_gb=4, minutes=None)
    """
    if (spec is None) == (not numbers):
        raise InvalidParameterError("give one spec, or its numbers", value=(spec, numbers))
    chosen = Resources(**numbers) if spec is None else spec

    def decorate(cls: type) -> type:
        setattr(cls, ATTRIBUTE, staticmethod(chosen) if callable(chosen) else chosen)
        return cls

    return decorate


def together(function: Callable[[list], AbstractContextManager[Any]]) -> Callable[[type], type]:
    """Class decorator: what to call with several tasks of the class that are about to run one after another on a GPU.

    It may do their common work at once, and returns a context manager, inside which the tasks are run: it owns the
    results, and drops what is left of them. Each task still runs by itself, and must not depend on it.
    """

    def decorate(cls: type) -> type:
        setattr(cls, TOGETHER, staticmethod(function))
        return cls

    return decorate


def declared(task: Any) -> Resources | None:
    """What a task's class asks for, evaluated for this task; None if it says nothing."""
    spec = getattr(type(task), ATTRIBUTE, None)
    return spec(task) if callable(spec) else spec


def parse_overrides(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``NODE.FIELD=NUMBER[,FIELD=NUMBER ...]``, as in ``correct.gpus=1,mem_gb=8``, into node -> field -> number.

    Raises
    ------
    InvalidParameterError

    Examples
    --------
    >>> parse_overrides(["correct.gpus=1,mem_gb=8"])
    {'correct': {'gpus': 1, 'mem_gb': 8.0}}
    """
    known = {f.name: int if f.name in ("cpus", "gpus") else float for f in fields(Resources)}
    overrides: dict[str, dict[str, Any]] = {}
    for text in texts:
        node, dot, rest = text.partition(".")
        changes = dict(part.partition("=")[::2] for part in rest.split(","))
        if not (node and dot) or not all(changes.values()):
            raise InvalidParameterError(
                "resources are given as STEP.FIELD=NUMBER", value=repr(text), next_step="As in correct.gpus=1,mem_gb=8."
            )
        for name, number in changes.items():
            if name not in known:
                raise InvalidParameterError(
                    "no such resource", value=repr(name), next_step=f"There are: {', '.join(known)}."
                )
            try:
                overrides.setdefault(node, {})[name] = known[name](number)
            except ValueError as error:
                raise InvalidParameterError(f"{name} is a number", value=repr(number)) from error
        Resources(**overrides[node])  # its own checks
    return overrides


# --- what this machine has


def available() -> Resources:
    """What this machine has: usable cores, visible GPUs, memory of the machine or of the container."""
    return Resources(cpus=_cores(), gpus=len(gpu_ids()), mem_gb=_memory_gb())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_ids() -> tuple[str, ...]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; loads no CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles"))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return tuple(str(number) for number, line in enumerate(line for line in lines if line.startswith("GPU ")))


def chosen_gpus(asked: int | str | Iterable | None) -> tuple[str, ...]:
    """Names of the GPUs to use: all that are visible (None), so many of them, or those named ("0,2", or a list).

    More than are visible are counted from 0: as many as asked for, for tests with pretend GPUs.
    """
    if asked is None:
        return gpu_ids()
    if isinstance(asked, int):
        visible = gpu_ids()
        return visible[:asked] if asked <= len(visible) else tuple(str(number) for number in range(asked))
    names = asked.split(",") if isinstance(asked, str) else asked
    return tuple(str(name).strip() for name in names if str(name).strip())


def _memory_gb() -> float | None:
    limits = []
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(file) as stream:
                limits.append(int(stream.read()))
        except (OSError, ValueError):
            continue
    return round(min(limits) / 1e9, 1)


def resolve_device(device: str) -> str:
    """The device that "auto" stands for; raises InvalidParameterError for one that is not there."""
    if device not in DEVICES:
        raise InvalidParameterError(
            "unknown device", value=repr(device), next_step=f"Choose one of: {', '.join(DEVICES)}."
        )
    if device == "cpu":
        return device
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InvalidParameterError(
            "no CUDA device is available", value="device 'cuda'", next_step="Use device 'cpu' or 'auto'."
        )
    return "cuda" if available else "cpu"
