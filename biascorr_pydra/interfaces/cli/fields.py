"""Options of the command line made from the one list of a correction's options."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from biascorr_pydra.correction.options import DEFAULTS, CorrectionOptions, choices_of, help_of
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.interfaces.pydra.options import name_and_value
from biascorr_pydra.resources import DEVICES

__all__ = ["FILE", "correction_options", "device_option", "file_option", "overwrite_option", "sentence"]

Decorator = Callable[[Any], Any]

FILE = click.Path(path_type=str)


def sentence(help: str) -> str:
    """Half a sentence as a whole one."""
    return f"{help[0].upper()}{help[1:]}."


def file_option(name: str, prefix: str = "") -> Decorator:
    """The option for a file that is read or written, by its name in every face."""
    return click.option(_flag(name), type=FILE, help=sentence(prefix + help_of(name)))


def device_option(default: str = DEFAULTS.device) -> Decorator:
    """`--device`, for every command that computes."""
    return click.option("--device", type=click.Choice(DEVICES), default=default, show_default=True)


def overwrite_option(help: str = "Replace outputs that exist.") -> Decorator:
    """`--overwrite`, for every command that writes."""
    return click.option("--overwrite", is_flag=True, help=help)


def correction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: an option for every field of :class:`CorrectionOptions`, spelled as :data:`SPELLED` says."""
    for field in reversed(fields(CorrectionOptions)):
        command = SPELLED.get(field.name, _plain)(field.name)(command)
    return command


def _plain(name: str) -> Decorator:
    """An option of the field's name, with its default, choices and help."""
    default, help = getattr(DEFAULTS, name), sentence(help_of(name))
    if isinstance(default, bool):
        return click.option(_flag(name), is_flag=True, default=default, help=help)
    kind: Any = click.Choice(choices_of(name)) if choices_of(name) else int if isinstance(default, int) else str
    return click.option(_flag(name), type=kind, default=default, show_default=default is not None, help=help)


def _single_parameters(name: str) -> Decorator:
    return click.option(
        "--set",
        name,
        multiple=True,
        metavar="NAME=VALUE",
        callback=_pairs,
        help="One parameter of the method, on top of the preset, as JSON: iterations=[50,20]; repeatable.",
    )


def _switch(name: str) -> Decorator:
    flag = _flag(name)
    return click.option(f"{flag}/--no-{flag[2:]}", default=getattr(DEFAULTS, name), help=sentence(help_of(name)))


def _written_file(name: str) -> Decorator:
    return click.option(_flag(f"{name}_file"), type=FILE, help=sentence(help_of(name)))


def _read_json(name: str) -> Decorator:
    return click.option(
        _flag(f"{name}_file"), name, type=FILE, metavar="JSON", callback=_json, help=sentence(help_of(name))
    )


#: Fields whose option is spelled otherwise: a mapping as NAME=VALUE or as a JSON file, a further output as its file.
SPELLED: dict[str, Callable[[str], Decorator]] = {
    "options": _single_parameters,
    "gate": _switch,
    "uncertainty": _written_file,
    "metadata": _read_json,
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs, values read as JSON where they are JSON."""
    try:
        return dict(name_and_value(text) for text in values)
    except InvalidParameterError as error:
        raise click.BadParameter(str(error)) from error


def _json(context: click.Context, parameter: click.Parameter, file: str | None) -> dict[str, Any] | None:
    """The content of a JSON file."""
    if file is None:
        return None
    try:
        content = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise click.BadParameter(f"{file} is not a JSON object, as a BIDS sidecar is")
    return content
