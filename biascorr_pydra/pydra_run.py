"""`pydra run FILE --options`: any Pydra workflow file from the shell.

The workflow's typed inputs become the options, its docstring their help. The outermost workflow is always evaluated
anew (it lists inputs, so caching it by their paths would answer with yesterday's list); the tasks inside are cached by
content. A file may define ``hooks`` (see :class:`RunHooks`) to describe its plan, show progress and report its outcome.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import threading
import types
import typing as ty
from contextlib import contextmanager
from pathlib import Path

import click

from .errors import BiasCorrError

__all__ = ["RunHooks", "main", "run"]

HELP = {"help_option_names": ["-h", "--help"]}
POLL_S = 1.0


class RunHooks(ty.Protocol):
    """What a workflow file may define as ``hooks``; every part is optional."""

    def prepare(self, task, rerun: bool):
        """Check the inputs before anything runs (raise BiasCorrError), and return the task to run."""

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
    module, workflow_class = _load_workflow(arguments[0])
    command = _command(f"{context.command_path} {arguments[0]}", module, workflow_class)
    command.main(list(arguments[1:]), prog_name=command.name)


# --- finding the workflow


def _load_workflow(text: str):
    """Import FILE[:NAME]; return the module and the workflow class."""
    from pydra.compose import workflow

    file, _, name = text.partition(":")
    path = Path(file)
    if not path.is_file():
        raise click.UsageError(f"no such workflow file: {file}")
    module = _import(path)
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, workflow.Task) and value is not workflow.Task
    }
    if name:
        if name not in found:
            raise click.UsageError(f"{file} has no workflow {name!r}; it has: {', '.join(found) or 'none'}")
        return module, found[name]
    own = {key: value for key, value in found.items() if value.__module__ == module.__name__} or found
    if len(own) != 1:
        listed = ", ".join(own) or "none"
        raise click.UsageError(f"{file} must have one workflow, or name one as {file}:NAME; it has: {listed}")
    return module, next(iter(own.values()))


def _import(path: Path) -> types.ModuleType:
    import cloudpickle

    name = f"pydra_run_{path.stem}"  # a file named json.py must not stand in for that module
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None:
        raise click.UsageError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise click.UsageError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    # Workers in other processes and on other machines cannot import FILE: its tasks must travel with the job.
    cloudpickle.register_pickle_by_value(module)
    return module


# --- its options


def _command(name: str, module, workflow_class) -> click.Command:
    from pydra.utils.general import get_fields

    fields = [field for field in get_fields(workflow_class) if field.name != "constructor"]
    reserved = {option.name for option in _run_options()}
    for field in fields:
        if field.name in reserved:
            raise click.UsageError(f"the workflow's input {field.name!r} has the name of an option of `run`; rename it")
    options = [_option(field) for field in fields if field.name not in ("run_id", "recompute")]
    doc = (workflow_class.__doc__ or _constructor(workflow_class).__doc__ or "").strip()
    return click.Command(
        name,
        params=[*options, *_run_options()],
        callback=lambda **values: sys.exit(_run(module, workflow_class, values)),
        help=doc.split("\n\n")[0],
        context_settings=HELP,
    )


def _constructor(workflow_class):
    from pydra.utils.general import get_fields

    return next(field.default for field in get_fields(workflow_class) if field.name == "constructor")


def _run_options() -> list[click.Option]:
    return [
        click.Option(["--worker"], default=None, help="debug (one after another), cf (processes), slurm, sge [cf]"),
        click.Option(["--n-procs"], type=click.IntRange(min=1), help="processes of the cf worker [all cores]"),
        click.Option(
            ["--work-dir"],
            type=click.Path(file_okay=False, path_type=Path),
            help="where intermediate results are kept [OUT_DIR/work if there is an --out-dir, else ./work]",
        ),
        click.Option(["--dry-run"], is_flag=True, help="print the plan and stop"),
        click.Option(["--rerun"], is_flag=True, help="compute everything again"),
    ]


def _option(field) -> click.Option:
    """One workflow input as a command-line option."""
    kind, multiple = _click_type(field.type)
    flag = "--" + field.name.replace("_", "-")
    text = " ".join((field.help or "").split())
    if field.mandatory:  # click takes any default, also None, as an answer
        return click.Option([flag], type=kind, multiple=multiple, required=True, help=text)
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=field.default, help=text)
    shown = field.default not in (None, "", [], ())
    return click.Option([flag], type=kind, multiple=multiple, default=field.default, help=text, show_default=shown)


def _click_type(annotation) -> tuple[ty.Any, bool]:
    """click's type for a type annotation, and whether the option is repeatable."""
    from fileformats.core import FileSet

    origin, arguments = ty.get_origin(annotation), [a for a in ty.get_args(annotation) if a is not type(None)]
    if origin in (ty.Union, types.UnionType) and len(arguments) == 1:
        return _click_type(arguments[0])
    if origin in (list, tuple, set) or annotation in (list, tuple):
        return (_click_type(arguments[0])[0] if arguments else str), True
    if origin is ty.Literal:
        return click.Choice([str(a) for a in ty.get_args(annotation)]), False
    if annotation in (bool, int, float, str):
        return annotation, False
    if annotation is dict or origin is dict:
        return _Json(), False
    if isinstance(annotation, type) and issubclass(annotation, FileSet):
        return click.Path(exists=True, path_type=Path, resolve_path=True), False
    if isinstance(annotation, type) and issubclass(annotation, os.PathLike):
        return click.Path(path_type=Path, resolve_path=True), False
    return str, False


class _Json(click.ParamType):
    name = "json"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            self.fail(f"not valid JSON: {error}", param, ctx)


# --- running it


def _run(module, workflow_class, values: dict) -> int:
    options = {name: values.pop(name) for name in ("worker", "n_procs", "work_dir", "dry_run", "rerun")}
    hooks = getattr(module, "hooks", None)
    _share_cores(options)
    inputs = {name: list(value) or None if isinstance(value, tuple) else value for name, value in values.items()}
    try:
        task = workflow_class(**{name: value for name, value in inputs.items() if value is not None})
        task = _call(hooks, "prepare", task, options["rerun"], default=task)
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
    return _submit(task, hooks, options, inputs)


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


def _submit(task, hooks, options: dict, inputs: dict) -> int:
    worker = options["worker"] or "cf"
    arguments = {"n_procs": options["n_procs"] or _cores()} if worker == "cf" else {}
    os.environ.setdefault("NO_ET", "1")  # nothing is sent anywhere at run time
    from pydra.engine.submitter import Submitter

    work_dir = options["work_dir"] or Path(inputs.get("out_dir") or Path.cwd()) / "work"
    logging.getLogger("pydra").setLevel(logging.CRITICAL)
    try:
        submitter = Submitter(worker=worker, cache_root=work_dir, propagate_rerun=options["rerun"], **arguments)
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"--worker {worker}: {error}") from error
    except OSError as error:
        raise click.UsageError(f"--work-dir {work_dir} cannot be used: {error.strerror or error}") from error
    with _clean_after_interrupts(work_dir), submitter:
        with _watched(hooks, task):
            result = _attempt(submitter, task)
        if not hasattr(hooks, "finish"):
            return _outcome(result)
        try:
            return hooks.finish(task, work_dir.resolve(), lambda again: _attempt(submitter, again), result)
        except BiasCorrError as error:
            click.echo(f"Error: {error}", err=True)
            return 1


@contextmanager
def _clean_after_interrupts(work_dir: Path):
    """Forget the empty results that an interrupted run leaves: the engine would take them for finished work.

    A mark is in the work folder while a run goes on; where it is found at the start, the run before was interrupted.
    """
    from .interfaces.pydra_results import forget_empty_results

    mark = work_dir / ".running"
    if mark.exists():
        forget_empty_results(work_dir)
    mark.touch()
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to go on from here.", err=True)
        sys.exit(130)
    mark.unlink(missing_ok=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share_cores(options: dict) -> None:
    """Give each worker process its share of the cores, unless the user said otherwise; before torch is loaded."""
    processes = (options["n_procs"] or _cores()) if options["worker"] in (None, "cf") else 1
    threads = max(1, _cores() // processes)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ.setdefault(name, str(threads))


def _attempt(submitter, task):
    """Run a task; its result, errored or not, or the exception where the engine gave no result."""
    try:
        return submitter(task, rerun=True, raise_errors=False)
    except Exception as error:  # whatever the engine raises, the outcome is told by what is on disk
        return error


def _outcome(result) -> int:
    """Print the outputs or the error of a workflow without hooks; the exit code."""
    from pydra.utils.general import attrs_values

    from .interfaces.pydra_results import error_line

    if not isinstance(result, Exception) and not result.errored:
        for name, value in attrs_values(result.outputs).items():
            click.echo(f"{name}: {value}")
        return 0
    click.echo(f"FAILED: {error_line(result)}", err=True)
    if not isinstance(result, Exception):
        click.echo(f"Details: pydra crash {result.cache_dir / '_error.pklz'}", err=True)
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
