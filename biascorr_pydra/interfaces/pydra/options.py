"""What `pydra run FILE` makes of a file: the workflow in it, and its inputs as command-line options."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
import typing as ty
from pathlib import Path

import click

from biascorr_pydra.errors import InvalidParameterError

__all__ = ["constructor_of", "load_workflow", "name_and_value", "option_of", "run_options"]

WORKERS = (
    "lanes (this machine, GPUs too), slurm-resources, dask-resources, debug (one after another), "
    "or any other of Pydra's"
)


def load_workflow(text: str) -> tuple[types.ModuleType, type]:
    """Import FILE[:NAME]; return the module and the workflow class."""
    from pydra.compose import workflow

    file, _, name = text.partition(":")
    path = Path(file)
    if not path.is_file():
        raise click.UsageError(f"no such workflow file: {file}")
    module = _import(path)
    workflows = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, workflow.Task) and value is not workflow.Task
    }
    if name:
        if name not in workflows:
            raise click.UsageError(f"{file} has no workflow {name!r}; it has: {', '.join(workflows) or 'none'}")
        return module, workflows[name]
    own = {key: value for key, value in workflows.items() if value.__module__ == module.__name__} or workflows
    if len(own) != 1:
        listed = ", ".join(own) or "none"
        raise click.UsageError(f"{file} must have one workflow, or name one as {file}:NAME; it has: {listed}")
    return module, next(iter(own.values()))


def _import(path: Path) -> types.ModuleType:
    import cloudpickle

    name = f"pydra_run_{path.stem}"  # a file named json.py must not stand in for that module
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
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


# --- options


def name_and_value(text: str) -> tuple[str, ty.Any]:
    """Read NAME=VALUE; the name as Python spells it, the value as JSON where it is JSON, else as text.

    Raises
    ------
    InvalidParameterError
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidParameterError("an option of this kind is NAME=VALUE", value=repr(text))
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


def constructor_of(workflow_class):
    """The function that a workflow class was made of."""
    from pydra.utils import get_fields

    return next(field.default for field in get_fields(workflow_class) if field.name == "constructor")


def run_options() -> list[click.Option]:
    """The options that every workflow file has beside its own inputs."""
    return [
        click.Option(["--worker"], default="lanes", show_default=True, help=WORKERS),
        click.Option(["--n-procs"], type=click.IntRange(min=1), help="CPUs to use on this machine [all]"),
        click.Option(
            ["--resources"],
            multiple=True,
            metavar="STEP.NAME=N[,NAME=N]",
            help="what a step needs (cpus, gpus, mem_gb, minutes), as in correct.gpus=1,mem_gb=8; repeatable",
        ),
        click.Option(
            ["--worker-option"], multiple=True, metavar="NAME=VALUE", help="for the worker, as in gpus=2; repeatable"
        ),
        click.Option(
            ["--work-dir"],
            type=click.Path(file_okay=False, path_type=Path),
            help="where intermediate results are kept [OUT_DIR/work if there is an --out-dir, else ./work]",
        ),
        click.Option(["--dry-run"], is_flag=True, help="print the plan and stop"),
        click.Option(["--rerun"], is_flag=True, help="compute everything again"),
    ]


def option_of(field) -> click.Option:
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
