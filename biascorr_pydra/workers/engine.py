"""Pydra's inside: the one module that names what Pydra keeps to itself, with what each name stands for.

Pydra 1.0 is in alpha, and what a worker needs of it is not all in its documented interface. Every private name of
Pydra, and everything of ``pydra.engine`` and ``pydra.workers``, is used here and nowhere else
(``tests/workers/test_engine.py`` reads the package's sources for it), so that a change in Pydra is one edit. Each
function says since which version Pydra has the names; all were read in 1.0a12. The bound on pydra in pyproject.toml is
that of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from fileformats.core import FileSet
from pydra.compose.base import Outputs, Task
from pydra.engine import Submitter
from pydra.engine.hooks import TaskHooks
from pydra.engine.job import Job
from pydra.engine.result import Result, copyfile_workflow, load_result, record_error
from pydra.engine.workflow import Workflow
from pydra.utils.general import is_workflow
from pydra.utils.messenger import AuditFlag
from pydra.workers.base import Worker
from pydra.workers.cf import ConcurrentFuturesWorker
from pydra.workers.debug import DebugWorker

__all__ = [
    "ERROR_FILE",
    "JOB_FILE",
    "LOCAL_WORKERS",
    "RESULT_FILE",
    "Job",
    "Outputs",
    "Result",
    "Submitter",
    "Task",
    "TaskHooks",
    "Worker",
    "adopt_identity",
    "check_inputs_unchanged",
    "checksum_of",
    "compute_outputs",
    "construct",
    "errored_result",
    "forget_result",
    "function_of",
    "input_hashes",
    "is_audited",
    "is_workflow",
    "mark_errored",
    "output_files",
    "output_values",
    "remember_result",
    "stored_result",
    "task_values",
    "unpickled_parts",
    "without_graph",
    "write_error",
]

RESULT_FILE = "_result.pklz"
"""The pickled result in a job's cache folder; since 1.0a6 or before."""
JOB_FILE = "_job.pklz"
"""The pickled job in its cache folder, for `pydra crash`; since 1.0a6 or before."""
ERROR_FILE = "_error.pklz"
"""The traceback in a failed job's cache folder; since 1.0a6 or before."""

LOCAL_WORKERS: tuple[type[Worker], ...] = (DebugWorker, ConcurrentFuturesWorker)
"""Pydra's own workers whose jobs run on this machine and end with the submitting process; since 1.0a6 or before."""


# --- who a task is


def checksum_of(task: Task) -> str:
    """The name of a task's folder in the cache, from class and inputs; ``Task._checksum``, since 1.0a6 or before."""
    return task._checksum


def input_hashes(task: Task) -> dict[str, bytes] | None:
    """A task's inputs as they were last hashed, by field; None before that. ``Task._hashes``, since 1.0a6 or before."""
    return task._hashes


def adopt_identity(job: Job, checksum: str, hashes: Mapping[str, bytes] | None) -> None:
    """Give a job a checksum and hashes that are known, so that its inputs are not hashed again before it runs.

    ``Job._checksum`` and ``Task._hashes``, since 1.0a6 or before.
    """
    job._checksum, job.task._hashes = checksum, hashes


def task_values(task: Task) -> dict[str, Any]:
    """What a task is to be built from again: its values that are not defaults, under the names that its class takes."""
    values = {}
    for field in attrs.fields(type(task)):
        value = getattr(task, field.name)
        if field.init and value is not field.default:
            values[field.alias] = value
    return values


def function_of(task_class: type[Task]) -> Callable | None:
    """The function that a task's class was made from; None for a class of another kind.

    ``Task._executor_name`` names the field that holds it as its default; since 1.0a6 or before.
    """
    executor = getattr(task_class, "_executor_name", None)
    return getattr(attrs.fields_dict(task_class).get(executor), "default", None) if executor else None


# --- results


def stored_result(checksum: str, caches: Iterable[Path]) -> Result | None:
    """The result under a checksum in the first of these caches that has one; None where there is none.

    ``pydra.engine.result.load_result``, since 1.0a6 or before.
    """
    return load_result(checksum, list(caches))


def remember_result(job: Job, result: Result | None) -> None:
    """Keep a result with its job, so that it is not read from the disk again; ``Job._cached_result``, since 1.0a10."""
    job._cached_result = result


def forget_result(job: Job) -> None:
    """Take a job for one that has not run; ``Job._errored``, since 1.0a6, and ``Job._cached_result``, since 1.0a10."""
    job._errored, job._cached_result = False, None


def mark_errored(job: Job) -> None:
    """Take a job for failed, whatever is in its folder; ``Job._errored``, since 1.0a6 or before."""
    job._errored = True


def errored_result(job: Job) -> Result:
    """The result of a job that has failed: no outputs, and the task for `pydra crash`."""
    return Result(outputs=None, errored=True, cache_dir=job.cache_dir, task=job.task)


def write_error(folder: Path, lines: list[str]) -> None:
    """Leave an error, as lines of text, in a job's folder; ``pydra.engine.result.record_error``, since 1.0a6."""
    record_error(folder, error=lines)


def output_files(outputs: Outputs) -> Iterator[Path]:
    """The files and folders among a result's outputs, lists of them taken apart."""
    for value in attrs.asdict(outputs, recurse=False).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, FileSet):
                yield from part.fspaths


def output_values(result: Result) -> dict[str, Any]:
    """A result's outputs by name, without Pydra's own fields, whose names begin with an underscore."""
    values = attrs.asdict(result.outputs, recurse=False)
    return {name: value for name, value in values.items() if not name.startswith("_")}


def unpickled_parts(result: Result) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A result's fields by name, and which of them Pydra reads back as pickles of their own.

    ``Result.CLOUD_PICKLE_ATTRS``, since 1.0a6 or before.
    """
    state = {field.name: getattr(result, field.name) for field in attrs.fields(Result)}
    return state, Result.CLOUD_PICKLE_ATTRS


# --- running


def is_audited(job: Job) -> bool:
    """Whether Pydra is to write provenance records of a job: then only its own ``Job.run`` will do."""
    return job.audit.audit_flags != AuditFlag.NONE


def compute_outputs(job: Job, rerun: bool) -> Outputs:
    """Run a job's task in the current folder, the job's own; its outputs, those of a workflow copied there.

    ``Task._run``, ``Outputs._from_job`` and ``copyfile_workflow``, since 1.0a6 or before.
    """
    job.task._run(job, rerun)
    outputs = job.task.Outputs._from_job(job)
    return copyfile_workflow(wf_path=job.cache_dir, outputs=outputs) if is_workflow(job.task) else outputs


def check_inputs_unchanged(job: Job) -> None:
    """Raise RuntimeError where a job has changed its own inputs; ``Job._check_for_hash_changes``, since 1.0a6."""
    job._check_for_hash_changes()


def construct(job: Job, submitter: Submitter) -> Any:
    """A workflow job's graph of nodes, kept with the job as Pydra keeps it.

    The workflow is not kept in Pydra's cache of constructed workflows: that grows with every scan. ``dont_cache``,
    since 1.0a6 or before.
    """
    workflow = Workflow.construct(job.task, dont_cache=True)
    graph = workflow.execution_graph(submitter=submitter)
    job.return_values = {"workflow": workflow, "exec_graph": graph}
    return graph


def without_graph(job: Job) -> None:
    """Let go of a workflow job's graph, with every job in it; ``Job.return_values``, since 1.0a6 or before."""
    job.return_values = {}
