"""What `pydra run` asks of the cohort workflow: its plan in words, its progress, and its outcome scan by scan."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import click
from pydra.engine.result import load_result

from .. import report, status
from ..bids import Job
from ..interfaces.pydra_results import error_line
from ..plan import MethodSpec, Plan, is_done
from .workflow import CorrectBids, plan_of, prepare, scan_task, settings_of

__all__ = ["hooks"]


class CohortHooks:
    """Hooks of :class:`CorrectBids`; see :class:`biascorr_pydra.pydra_run.RunHooks` for each one's part."""

    def prepare(self, task: CorrectBids, rerun: bool) -> CorrectBids:
        """Name the run, and check everything that can be checked before it starts."""
        task = attrs.evolve(task, run_id=uuid.uuid4().hex, recompute=task.recompute or rerun)
        _plan(task)
        return task

    def describe(self, task: CorrectBids) -> list[str]:
        """The plan: a line per scan and method, and what would be written."""
        plan = _plan(task)
        rows = status.expected(plan)
        words = {"done": "to do", "cached": "done already", "failed": "cannot be done: "}
        lines = [f"{row.scan}  {row.method}  {words[row.state]}{row.reason.removesuffix('n/a')}" for row in rows]
        counts, settings = _count(rows), plan.settings
        return [
            *lines,
            f"{len(plan.jobs)} scans, {len(settings.methods)} method(s): {counts['done']} to do, "
            f"{counts['cached']} done already, {counts['failed']} cannot be done.",
            f"Brain mask: {settings.skull_strip}. Segmentation: {settings.segmentation}.",
            f"Output: {settings.out_dir}/{{{','.join(spec.label for spec in settings.methods)}}}",
        ]

    def progress(self, task: CorrectBids) -> tuple[int, int]:
        """Corrections finished, and to do, in this run."""
        plan = _plan(task)
        todo = [(job, spec) for job, specs in plan.pending for spec in specs]
        return sum(_done(plan, job, spec, task.run_id) for job, spec in todo), len(todo)

    def finish(self, task: CorrectBids, cache_root: Path, submit: Callable, outcome) -> int:
        """Run what the engine left out, then write and print the outcome; the exit code."""
        plan = _plan(task)
        prepare(plan)  # if this was what failed, its error ends the run
        reasons = self._complete(plan, task.run_id, cache_root, submit)
        rows = status.collect(plan, reasons, task.run_id)
        counts = _count(rows)
        click.echo(f"{counts['done']} done, {counts['cached']} done before, {counts['failed']} failed.")
        for row in rows:
            if row.state == "failed":
                click.echo(f"FAILED  {row.scan}  {row.method}\n        {row.reason}", err=True)
        paths = report.ReportPaths.inside(plan.settings.out_dir)
        if counts["failed"] or getattr(outcome, "errored", True):  # otherwise the workflow's last node has done it
            status.write(plan.settings.out_dir, rows)
            paths = report.write_report(plan.settings.out_dir)
        click.echo(f"Metrics: {paths.metrics_tsv}\nReport:  {paths.html}")
        return 1 if counts["failed"] else 0

    def _complete(self, plan: Plan, run_id: str, cache_root: Path, submit: Callable) -> dict[tuple[str, str], str]:
        """Reason of failure per scan and method, after running on their own what never ran.

        The debug worker stops at the first error, and one failing method hides the others of its scan: whatever
        has neither an output nor an error of its own is submitted again by itself.
        """
        reasons = {}
        for job, specs in plan.pending:
            whole = load_result(scan_task(plan, job, specs, run_id)._checksum, [cache_root])
            for spec in specs:
                if _done(plan, job, spec, run_id):
                    continue
                result = whole
                if whole is None or len(specs) > 1:
                    result = submit(scan_task(plan, job, (spec,), run_id))
                if not _done(plan, job, spec, run_id):
                    reasons[job.relative, spec.label] = error_line(result)
        return reasons


hooks = CohortHooks()


def _plan(task: CorrectBids) -> Plan:
    return plan_of(settings_of(task), task.recompute, task.run_id)


def _done(plan: Plan, job: Job, spec: MethodSpec, run_id: str) -> bool:
    return is_done(job, plan.settings.out_dir / spec.label, plan.keys[job.relative, spec.label], run_id)


def _count(rows: list[status.Row]) -> Counter:
    return Counter(row.state for row in rows)
