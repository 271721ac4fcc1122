"""What `pydra run` asks of the cohort workflow: its plan in words, its progress, and its outcome scan by scan."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import click
from fileformats.generic import File
from pydra.compose import workflow

from biascorr_pydra import lock, report
from biascorr_pydra.cohort import CorrectionPlan, status
from biascorr_pydra.cohort.changes import replaced
from biascorr_pydra.errors import InvalidParameterError, ResourceError
from biascorr_pydra.interfaces.judging import judge_aloud
from biascorr_pydra.resources import Resources, available, declared, resolve_device
from biascorr_pydra.workers import is_remote
from biascorr_pydra.workers.engine import Worker, checksum_of, stored_result

from .cohort import plan_of, prepare, scan_task, settings_of
from .results import error_line
from .tasks import CorrectBias

__all__ = ["Submit", "check_resources", "complete", "device_for", "hooks", "name_of_run"]

Submit = Callable[[workflow.Task], Any]  # runs a task; its result, or the exception that the engine raised instead
# the workflow's nodes, as --resources names them
STEPS = ("scan", "brain", "by_method", "correct", "tissue", "measure", "publish", "judge", "report")


class CohortHooks:
    """Hooks of :class:`CorrectBids`; see :class:`biascorr_pydra.interfaces.pydra.run.RunHooks` for each one's part."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, str]] = set()

    def prepare(self, task: workflow.Task, rerun: bool, worker: Worker) -> workflow.Task:
        """Name the run, and check everything that can be checked before it starts.

        A run that was killed goes on under its name, so that whatever still computes for it is waited for.
        """
        task = attrs.evolve(task, recompute=task.recompute or rerun, device=device_for(task.device, worker))
        task = attrs.evolve(task, run_id=name_of_run(task, _choices(task)))
        task = attrs.evolve(task, report_cpus=cpus_for_report(worker))
        check_resources([_plan(task)], task.run_id, worker)
        announce([_plan(task)])
        return task

    def facts(self, task: workflow.Task) -> dict[str, str]:
        """The run's name, and its choices."""
        return {"run_id": task.run_id, "choices": _choices(task)}

    def describe(self, task: workflow.Task) -> list[str]:
        """The plan: a line per scan and method, and what would be written."""
        plan = _plan(task)
        rows = status.expected(plan)
        words = {"done": "to do", "cached": "done already", "failed": "cannot be done: ", "skipped": "skipped: "}
        lines = [f"{row.scan}  {row.method}  {words[row.state]}{row.reason.removesuffix('n/a')}" for row in rows]
        counts, settings = _count(rows), plan.settings
        return [
            *lines,
            f"{len(plan.jobs)} scans, {len(settings.methods)} method(s): {counts['done']} to do, "
            f"{counts['cached']} done already, {counts['failed']} cannot be done.",
            f"Brain mask: {settings.skull_strip}. Segmentation: {settings.segmentation}.",
            f"Output: {settings.out_dir}/{{{','.join(spec.label for spec in settings.methods)}}}",
        ]

    def progress(self, task: workflow.Task) -> tuple[int, int]:
        """Corrections finished, and to do, in this run."""
        plan = _plan(task)
        todo = [(job, spec) for job, specs in plan.tasks for spec in specs]
        for job, spec in todo:
            name = (task.run_id, job.relative, spec.label)
            if name not in self._seen and plan.is_done(job, spec.label, task.run_id):
                self._seen.add(name)
        return sum((task.run_id, job.relative, spec.label) in self._seen for job, spec in todo), len(todo)

    def finish(self, task: workflow.Task, cache_root: Path, submit: Submit, outcome: Any) -> int:
        """Run what the engine left out, then write and print the outcome; the exit code."""
        plan = _plan(task)
        if isinstance(outcome, Exception):
            click.echo(f"The workflow ended with an error: {error_line(outcome)}", err=True)
        if isinstance(outcome, Exception) or not status.has_begun(plan):
            prepare(plan)  # if this was what failed, its error ends the run
        reasons = complete(plan, task.run_id, cache_root, submit)
        rows = status.collect(plan, reasons, task.run_id)
        counts = _count(rows)
        skipped = f" {counts['skipped']} skipped." if counts["skipped"] else ""
        rejected = f" {counts['rejected']} rejected by the gate." if counts["rejected"] else ""
        done = f"{counts['done']} done, {counts['cached']} done before, {counts['failed']} failed."
        click.echo(f"{done}{rejected}{skipped}")
        for row in rows:
            if row.state in ("failed", "rejected"):
                click.echo(f"{row.state.upper()}  {row.scan}  {row.method}\n        {row.reason}", err=True)
        paths = report.ReportPaths.inside(plan.settings.out_dir)
        status.write(plan.settings.out_dir, rows)
        judge_aloud(plan.settings.out_dir, task.run_id)
        if not report.is_up_to_date(plan.settings.out_dir):  # usually the workflow's last node has made it
            report.write_report(plan.settings.out_dir, scan_pages=plan.settings.scan_pages, n_procs=task.report_cpus)
        click.echo(f"Metrics: {paths.metrics_tsv}\nReport:  {paths.html}")
        return 1 if counts["failed"] else 0


hooks = CohortHooks()


def announce(plans: Iterable[CorrectionPlan]) -> None:
    """Say which results that are there will be made again, and which settings changed."""
    for plan in plans:
        for sentence in replaced(plan):
            click.echo(sentence, err=True)


def complete(plan: CorrectionPlan, run_id: str, cache_root: Path, submit: Submit) -> dict[tuple[str, str], str]:
    """Reason of failure per scan and method, after running on their own what never ran.

    The debug worker stops at the first error, and one failing method hides the others of its scan: whatever has
    neither an output nor an error of its own is submitted again by itself.
    """
    reasons = {}
    for job, specs in plan.tasks:
        left = [spec for spec in specs if not plan.is_done(job, spec.label, run_id)]
        if not left:
            continue
        whole = stored_result(checksum_of(scan_task(plan, job, specs, run_id)), [cache_root])
        final = whole is not None and whole.errored and (len(specs) == 1 or _hopeless(whole))
        for spec in left:
            result = whole if final else submit(scan_task(plan, job, (spec,), run_id))
            if not plan.is_done(job, spec.label, run_id) and not getattr(result, "errored", True):
                # A killed run had finished it, and what it had published was removed since.
                result = submit(scan_task(plan, job, (spec,), run_id, again=True))
            if not plan.is_done(job, spec.label, run_id):
                reasons[job.relative, spec.label] = error_line(result)
    return reasons


def _hopeless(result: Any) -> bool:
    """Whether it would fail again at once: what it needs is not to be had."""
    return error_line(result).startswith(("SchedulerError", "ResourceError"))


def _plan(task: workflow.Task) -> CorrectionPlan:
    return plan_of(settings_of(task), task.recompute, task.run_id)


def _choices(task: workflow.Task) -> str:
    """What a run is asked to do, as one short text."""
    return hashlib.sha256(repr(settings_of(task)).encode()).hexdigest()[:16]


def _count(rows: list[status.Row]) -> Counter[str]:
    return Counter(row.state for row in rows)


def name_of_run(task: workflow.Task, choices: str) -> str:
    """A new name, or that of a run with the same choices that was killed in the same output folder."""
    killed = lock.current(Path(task.out_dir))
    if killed and not task.recompute and killed.get("choices") == choices:
        return killed["run_id"]
    return uuid.uuid4().hex


def device_for(device: str, worker: Worker) -> str:
    """``auto`` means this machine's GPUs where the worker uses them; an absent GPU is said before any scan is begun."""
    if is_remote(worker):
        return device
    if device == "auto":
        capacity = getattr(worker, "capacity", None)
        return resolve_device("auto") if capacity is not None and capacity.gpus else "auto"
    if device == "cuda":
        resolve_device(device)
    return device


def cpus_for_report(worker: Worker) -> int:
    """CPUs for the last step, which has the machine for itself: all that the worker may use; elsewhere one."""
    if is_remote(worker):
        return 1
    capacity = getattr(worker, "capacity", None)
    cpus = capacity.cpus if capacity is not None else getattr(worker, "n_procs", None)
    report_step = (getattr(worker, "overrides", None) or {}).get("report", {})
    return report_step.get("cpus") or cpus or available().cpus


def check_resources(plans: Iterable[CorrectionPlan], run_id: str, worker: Worker) -> None:
    """Refuse before anything runs what the worker can never give, and steps that do not exist."""
    overrides = getattr(worker, "overrides", None)
    if overrides is None:
        return
    if unknown := sorted(set(overrides) - set(STEPS)):
        raise InvalidParameterError(
            "no step of that name", value=f"--resources {unknown[0]}", next_step=f"The steps: {', '.join(STEPS)}."
        )
    for name, changes in overrides.items():
        worker.refuse_too_much(Resources().updated(changes), name)
    refused, count = None, 0
    for task, name in _tasks_to_check(plans, run_id):
        count += 1
        try:
            worker.check(task, name)
        except ResourceError as error:  # one scan that is too large fails by itself, when it is its turn
            refused, count = refused or error, count - 1
    if refused and not count:
        raise refused


def _tasks_to_check(plans: Iterable[CorrectionPlan], run_id: str) -> Iterator[tuple[Any, str]]:
    """What will be placed: whole scans, or where their steps are placed one by one, the corrections."""
    for plan in plans:
        for job, specs in plan.tasks:
            task = scan_task(plan, job, specs, run_id)
            if declared(task) is not None:
                yield task, "scan"
                continue
            for spec in specs:
                chosen = {"in_file": File(job.source), "method": spec.method, "device": plan.settings.options.device}
                yield CorrectBias(**chosen), "correct"
