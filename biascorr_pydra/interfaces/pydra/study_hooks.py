"""What `pydra run` asks of a study's workflow: the hooks of each data set's own workflow, one after another."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import attrs
import click
from pydra.compose import workflow

from biascorr_pydra import report
from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.workers.engine import Worker, checksum_of, stored_result

from .cohort_hooks import Submit, announce, check_resources, device_for, name_of_run
from .cohort_hooks import hooks as data_set_hooks
from .study import Part, Study, begin, study_of, study_settings

__all__ = ["abide_hooks"]


class AbideHooks:
    """Hooks of :class:`EvaluateAbide`; see :class:`.run.RunHooks` for each one's part."""

    def prepare(self, task: workflow.Task, rerun: bool, worker: Worker) -> workflow.Task:
        """Name the run, and check everything that can be checked before it starts."""
        task = attrs.evolve(task, recompute=task.recompute or rerun, device=device_for(task.device, worker))
        task = attrs.evolve(task, run_id=name_of_run(task, _choices(task)))
        plans = [part.plan for part in _study(task).parts]
        check_resources(plans, task.run_id, worker)
        announce(plans)
        return task

    def folders(self, task: workflow.Task) -> list[Path]:
        """The folder of each data set."""
        own = [Path(part.task.out_dir) for part in _study(task).parts]
        return [folder for folder in own if folder.resolve() != Path(task.out_dir).resolve()]

    def facts(self, task: workflow.Task) -> dict[str, str]:
        """The run's name, and its choices."""
        return {"run_id": task.run_id, "choices": _choices(task)}

    def describe(self, task: workflow.Task) -> list[str]:
        """The plan: each data set's own, the scans by site, and what does not fit together."""
        study = _study(task)
        lines = []
        for part in study.parts:
            lines += [f"== {part.root.name or study.settings.abide_dir.name}", *data_set_hooks.describe(part.task)]
        sites = Counter(scan["site"] or "no site" for scan in study.design["scans"])
        lines += [f"== {sum(sites.values())} scans by site", *(f"{site}  {n}" for site, n in sorted(sites.items()))]
        problems = study.design["problems"]
        lines += [f"== {len(problems)} problems", *(": ".join(problem) for problem in problems)]
        return [*lines, f"Evaluation: {report.EvaluationPaths.inside(study.settings.out_dir).folder}"]

    def progress(self, task: workflow.Task) -> tuple[int, int]:
        """Corrections finished, and to do, in this run."""
        counts = [data_set_hooks.progress(part.task) for part in _study(task).parts]
        return sum(done for done, _ in counts), sum(todo for _, todo in counts)

    def finish(self, task: workflow.Task, cache_root: Path, submit: Submit, outcome: Any) -> int:
        """Finish each data set, write the evaluation, and print where it is; the exit code."""
        study = _study(task)
        codes = [self._finish(part, cache_root, submit) for part in study.parts]
        for name, why in study.unusable.items():
            click.echo(f"LEFT OUT  {name}\n        {why}", err=True)
        self._evaluate(study, anew=getattr(outcome, "errored", True))  # else the workflow's last node has done it
        return 1 if any(codes) or study.unusable else 0

    def _finish(self, part: Part, cache_root: Path, submit: Submit) -> int:
        click.echo(f"== {part.root.name or part.root.path.name}")
        try:
            # Without a result of its own, whatever the data set's workflow left out is run by its hooks.
            return data_set_hooks.finish(
                part.task, cache_root, submit, stored_result(checksum_of(part.task), [cache_root])
            )
        except BiasCorrError as error:  # as an output folder that cannot be made: the other data sets go on
            click.echo(f"FAILED  {part.root.name}\n        {error}", err=True)
            return 1

    def _evaluate(self, study: Study, anew: bool) -> None:
        from biascorr_pydra.report.study.write import read_problems, write_evaluation

        if anew:
            begin(study)
            write_evaluation(study.settings.out_dir)
        paths = report.EvaluationPaths.inside(study.settings.out_dir)
        kinds = Counter(problem[0] for problem in read_problems(study.settings.out_dir))
        if kinds:
            listed = ", ".join(f"{kind} {n}" for kind, n in kinds.items())
            click.echo(f"{sum(kinds.values())} problems ({listed}): {paths.table('problems')}")
        click.echo(f"Evaluation: {paths.html}\nTables:     {paths.folder}/{{scans,sites,overall,problems}}.tsv")


abide_hooks = AbideHooks()


def _choices(task: workflow.Task) -> str:
    """What a run is asked to do, as one short text."""
    chosen = replace(study_settings(attrs.evolve(task, run_id="")), run_id="")
    return hashlib.sha256(repr(chosen).encode()).hexdigest()[:16]


def _study(task: workflow.Task) -> Study:
    return study_of(study_settings(task))
