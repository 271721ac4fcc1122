"""`pydra run FILE --options`: any Pydra workflow file from the shell.

The workflow's typed inputs become the options, its docstring their help. The outermost workflow is always evaluated
anew (it lists inputs, so caching it by their paths would answer with yesterday's list); the tasks inside are cached by
content. A file may define ``hooks`` (see :class:`RunHooks`) to describe its plan, show progress and report its outcome.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import typing as ty
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from biascorr_pydra import lock
from biascorr_pydra.errors import BiasCorrError, InvalidParameterError, RunLockedError
from biascorr_pydra.resources import THREAD_VARIABLES, available, parse_overrides

from .options import constructor_of, load_workflow, name_and_value, option_of, run_options

__all__ = ["RunHooks", "main", "run"]

HELP = {"help_option_names": ["-h", "--help"]}
POLL_S = 1.0
SET_BY_RUN = ("run_id", "recompute", "report_cpus")  # inputs of a workflow that are no options
RUN_OPTIONS = ("worker", "n_procs", "resources", "worker_option", "work_dir", "dry_run", "rerun")


class RunHooks(ty.Protocol):
    """What a workflow file may define as ``hooks``; every part is optional."""

    def prepare(self, task, rerun: bool, worker):
        """Check before anything runs that all can be run by this worker (raise BiasCorrError); the task to run."""

    def facts(self, task) -> dict:
        """What run.json says of this run while it lasts: name and choices."""

    def folders(self, task) -> list[Path]:
        """Output folders that this run alone may write to, besides --out-dir."""

    def describe(self, task) -> list[str]:
        """The lines that ``--dry-run`` prints; must touch nothing."""

    def progress(self, task) -> tuple[int, int]:
        """Steps done and steps in all, cheap: asked for about once a second while the workflow runs."""

    def finish(self, task, cache_root: Path, submit: ty.Callable, outcome) -> int:
        """Report the outcome, also of a run with errors; ``submit(task)`` runs one more. Returns the exit code.

        ``outcome`` is the engine's result, or the exception that it raised instead.
        """


def main() -> None:
    """Entry point of the console script `pydra`: Pydra's own commands, and `run`."""
    from pydra.scripts.cli import cli

    cli.add_command(run)
    cli(prog_name="pydra")


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    short_help="Run the workflow in a Python file.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="FILE[:NAME] [OPTIONS]")
def run(arguments: tuple[str, ...]) -> None:
    """Run the workflow in a Python file; its inputs are the options.

    FILE defines or imports one Pydra workflow; with several, name one: FILE:NAME. Its own options:
    `pydra run FILE --help`.
    """
    context = click.get_current_context()
    if not arguments or arguments[0] in HELP["help_option_names"]:
        click.echo(context.get_help())
        context.exit(0 if arguments else 2)
    if arguments[0].startswith("-"):
        raise click.UsageError("the workflow's FILE comes before its options")
    module, workflow_class = load_workflow(arguments[0])
    command = _command(f"{context.command_path} {arguments[0]}", module, workflow_class)
    command.main(list(arguments[1:]), prog_name=command.name)


def _command(name: str, module, workflow_class) -> click.Command:
    from pydra.utils import get_fields

    fields = [field for field in get_fields(workflow_class) if field.name != "constructor"]
    reserved = {option.name for option in run_options()}
    for field in fields:
        if field.name in reserved:
            raise click.UsageError(f"the workflow's input {field.name!r} has the name of an option of `run`; rename it")
    options = [option_of(field) for field in fields if field.name not in SET_BY_RUN]
    doc = (workflow_class.__doc__ or constructor_of(workflow_class).__doc__ or "").strip()
    return click.Command(
        name,
        params=[*options, *run_options()],
        callback=lambda **values: sys.exit(_run(module, workflow_class, values)),
        help=doc.split("\n\n")[0],
        context_settings=HELP,
    )


# --- running it


def _run(module, workflow_class, values: dict) -> int:
    options = {name: values.pop(name) for name in RUN_OPTIONS}
    hooks = getattr(module, "hooks", None)
    _share_cores(options)
    inputs = {name: list(value) or None if isinstance(value, tuple) else value for name, value in values.items()}
    try:
        task = workflow_class(**{name: value for name, value in inputs.items() if value is not None})
        worker = make_worker(options)
        task = _call(hooks, "prepare", task, options["rerun"], worker, default=task)
        if options["dry_run"]:
            lines = _call(hooks, "describe", task, default=None)
            click.echo("\n".join(lines if lines is not None else _describe(task)))
            return 0
    except BiasCorrError as error:
        raise click.UsageError(str(error)) from error
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, AttributeError) and not str(error).startswith("Mandatory"):
            raise
        raise click.UsageError(f"{type(error).__name__}: {error}") from error
    try:
        return _submit(task, hooks, worker, options, inputs)
    except RunLockedError as error:
        raise click.UsageError(str(error)) from error
    except BiasCorrError as error:
        click.echo(f"Error: {error}", err=True)
        return 1


def _call(hooks, name: str, *arguments, default):
    function = getattr(hooks, name, None)
    return function(*arguments) if function else default


def _describe(task) -> list[str]:
    """The plan of a workflow without hooks: its inputs and its nodes."""
    import attrs

    shown = {a.name: getattr(task, a.name) for a in attrs.fields(type(task)) if not a.name.startswith("_")}
    shown.pop("constructor", None)
    nodes = task.construct().nodes
    return [
        type(task).__name__,
        *(f"  {k} = {v}" for k, v in shown.items()),
        *(f"  runs {node.name}" for node in nodes),
    ]


def make_worker(options: dict):
    """The Pydra worker that the options ask for.

    Raises
    ------
    InvalidParameterError
        No such worker, or it does not take an option that was given.
    """
    import attrs

    from biascorr_pydra.workers.engine import Worker

    name = options["worker"]
    try:
        worker_class = Worker.plugin(name)
    except ValueError as error:
        known = ", ".join(sorted(plugin.replace("_", "-") for plugin in Worker.available_plugins()))
        raise InvalidParameterError(
            "no such worker", value=f"--worker {name}", next_step=f"There are: {known}."
        ) from error
    taken = {field.name for field in attrs.fields(worker_class) if field.init}
    arguments = dict(name_and_value(text) for text in options["worker_option"])
    if options["resources"]:
        arguments["overrides"] = parse_overrides(options["resources"])
        if "overrides" not in taken:
            raise InvalidParameterError(
                f"the worker {name} gives every task the same", value="--resources", next_step="Use --worker lanes."
            )
    if "n_procs" in taken:
        arguments.setdefault("n_procs", options["n_procs"] or available().cpus)
    if unknown := sorted(set(arguments) - taken):
        known = ", ".join(sorted(taken - {"loop", "overrides"})) or "none"
        raise InvalidParameterError(
            f"the worker {name} has no such option", value=", ".join(unknown), next_step=f"It has: {known}."
        )
    return worker_class(**arguments)


def _submit(task, hooks, worker, options: dict, inputs: dict) -> int:
    os.environ.setdefault("NO_ET", "1")  # nothing is sent anywhere at run time
    from biascorr_pydra.workers import is_remote
    from biascorr_pydra.workers.engine import Submitter

    out_dir = inputs.get("out_dir")
    work_dir = (options["work_dir"] or Path(out_dir or Path.cwd()) / "work").resolve()
    logging.getLogger("pydra").setLevel(logging.CRITICAL)
    facts = _call(hooks, "facts", task, default={})
    others = _call(hooks, "folders", task, default=[])
    with _alone(out_dir and Path(out_dir), others, work_dir, facts, jobs_outlive_runs=is_remote(worker)):
        submitter = Submitter(worker=worker, cache_root=work_dir, propagate_rerun=options["rerun"])
        with _until_interrupted(), submitter:
            with _watched(hooks, task):
                result = _attempt(submitter, task)
            if not hasattr(hooks, "finish"):
                return _outcome(result)
            return hooks.finish(task, work_dir, lambda again: _attempt(submitter, again), result)


@contextmanager
def _alone(
    out_dir: Path | None, others: list[Path], work_dir: Path, facts: dict[str, ty.Any], *, jobs_outlive_runs: bool
) -> ty.Iterator[None]:
    """Hold the output and work folders, and put in order what a killed run, or a killed lane, left there.

    Jobs of a cluster may still be writing for a run that was killed: what they have begun is left until this one ends.
    """
    from .results import forget_empty_results

    facts = {**facts, "jobs_outlive_runs": jobs_outlive_runs}
    folders = [folder.resolve() for folder in ([out_dir] if out_dir else []) + others]
    with ExitStack() as held:
        killed = [held.enter_context(lock.exclusive(folder, facts)) for folder in folders if folder != work_dir]
        if out_dir and any(killed) and not jobs_outlive_runs:
            lock.remove_temporary_files(out_dir, leave=work_dir)
        before = held.enter_context(lock.exclusive(work_dir, facts))
        if before:
            click.echo(f"The last run was killed ({lock.describe(before)}); this one goes on from there.", err=True)
            forget_empty_results(work_dir)
        # Nobody but the killed run and this one has worked here, and neither's work is done anywhere else.
        nobody = before is not None and not (jobs_outlive_runs or before.get("jobs_outlive_runs", True))
        lock.remove_stale_locks(work_dir, all_of_them=nobody)
        yield
        lock.remove_stale_locks(work_dir)
        if out_dir and any(killed) and jobs_outlive_runs:
            lock.remove_temporary_files(out_dir, leave=work_dir)


@contextmanager
def _until_interrupted():
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to go on from here.", err=True)
        raise SystemExit(130) from None


def _share_cores(options: dict) -> None:
    """Give each worker process its share of the cores, unless the user said otherwise; before torch is loaded."""
    cores = available().cpus
    processes = (options["n_procs"] or cores) if options["worker"] == "cf" else 1
    threads = max(1, cores // processes)
    if options["worker"] in ("cf", "debug"):
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(threads))


def _attempt(submitter, task):
    """Run a task; its result, errored or not, or the exception where the engine gave no result."""
    try:
        return submitter(task, rerun=True, raise_errors=False)
    except Exception as error:  # whatever the engine raises, the outcome is told by what is on disk
        return error


def _outcome(result) -> int:
    """Print the outputs or the error of a workflow without hooks; the exit code."""
    from biascorr_pydra.workers.engine import ERROR_FILE, output_values

    from .results import error_line

    if not isinstance(result, Exception) and not result.errored:
        for name, value in output_values(result).items():
            click.echo(f"{name}: {value}")
        return 0
    click.echo(f"FAILED: {error_line(result)}", err=True)
    if not isinstance(result, Exception):
        click.echo(f"Details: pydra crash {result.cache_dir / ERROR_FILE}", err=True)
    return 1


@contextmanager
def _watched(hooks, task):
    """Show progress while the body runs: a bar on a terminal, plain lines otherwise."""
    if not hasattr(hooks, "progress"):
        yield
        return
    stop = threading.Event()
    show = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=show, args=(lambda: hooks.progress(task), stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def _bar(progress, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        row = bar.add_task("corrected", total=progress()[1])
        while not stop.wait(POLL_S):
            bar.update(row, completed=progress()[0])
        bar.update(row, completed=progress()[0])


def _lines(progress, stop: threading.Event) -> None:
    last = None
    while True:
        ended = stop.wait(POLL_S)
        state = progress()
        if state != last:
            click.echo(f"corrected {state[0]} of {state[1]}", err=True)
            last = state
        if ended:
            return
