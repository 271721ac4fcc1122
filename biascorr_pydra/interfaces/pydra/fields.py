"""Inputs of tasks made from the one list of a correction's options."""

from __future__ import annotations

from typing import Any

from pydra.compose import python, shell, workflow

from biascorr_pydra.correction.options import DEFAULTS, CorrectionOptions, choices_of, help_of

__all__ = ["OPTIONS", "python_inputs", "shell_input", "workflow_inputs"]

OPTIONS = tuple(CorrectionOptions.__dataclass_fields__)


def _described(name: str) -> dict[str, Any]:
    choices = choices_of(name) if name in OPTIONS else ()
    return {"help": help_of(name)} | ({"allowed_values": list(choices)} if choices else {})


def python_inputs(*names: str) -> dict[str, python.arg]:
    """Help and choices of a Python task's inputs; types and defaults come from its function."""
    return {name: python.arg(**_described(name)) for name in names}


def workflow_inputs(*names: str) -> dict[str, workflow.arg]:
    """Help and choices of a workflow's inputs; types and defaults come from its function."""
    return {name: workflow.arg(**_described(name)) for name in names}


def shell_input(name: str, **changes: Any) -> Any:
    """A shell task's input for an option or a file, given to the command as ``--name``."""
    flag = "--" + name.replace("_", "-")
    default = getattr(DEFAULTS, name) if name in OPTIONS else None
    return shell.arg(**{"argstr": flag, "default": default, **_described(name), **changes})
