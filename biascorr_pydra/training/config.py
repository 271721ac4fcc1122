"""A training's configuration from a file and from single options: types and names checked, sources named in errors."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.files import write_text

from .base import Training

__all__ = ["configure", "keep", "read"]

WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read(file: str | Path) -> dict[str, Any]:
    """The table in a configuration file (.toml or .json).

    Raises
    ------
    InvalidParameterError
        The file is missing, of another kind, or not a table of options.
    """
    path = Path(file)
    parse = {".toml": tomllib.loads, ".json": json.loads}.get(path.suffix)
    if parse is None:
        raise InvalidParameterError("a configuration is a .toml or .json file", file=path, value=path.suffix)
    try:
        table = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidParameterError("the configuration can be read", file=path, value=str(error)) from error
    if not isinstance(table, dict):
        raise InvalidParameterError("a configuration is a table of options", file=path, value=type(table).__name__)
    return table


def configure(cls: type[Training], options: Mapping[str, Any], file: str | Path | None = None) -> Training:
    """A training's configuration: the file's values, and the options on top of them.

    Parameters
    ----------
    cls : a method's training
    options : by field name; those that are None do not count
    file : .toml or .json of the same names, - as good as _; a "method" in it must be this one

    Raises
    ------
    InvalidParameterError
        An unknown name, a value of the wrong type or out of range, or no data or output folder.
    """
    values = {name.replace("-", "_"): value for name, value in (read(file) if file else {}).items()}
    if (method := values.pop("method", cls.method)) != cls.method:
        raise InvalidParameterError(f"the configuration is for {cls.method}", file=file, value=method)
    _check_names(cls, values, file)
    given = {name: value for name, value in options.items() if value is not None}
    _check_names(cls, given, None)
    types = get_type_hints(cls)
    chosen = {name: _typed(name, value, types[name], file) for name, value in values.items() if name not in given}
    chosen |= {name: _typed(name, value, types[name], None) for name, value in given.items()}
    for name, (default, _) in cls.options().items():
        if default is MISSING and name not in chosen:
            raise InvalidParameterError(f"a training needs {name}", next_step=f"Give --{name}, or {name} in the file.")
    return cls(**chosen)


def _check_names(cls: type[Training], values: Mapping[str, Any], file) -> None:
    if unknown := sorted(set(values) - set(cls.options())):
        known = ", ".join(sorted(cls.options()))
        raise InvalidParameterError(
            f"the training of {cls.method} has no such option",
            file=file,
            value=", ".join(unknown),
            next_step=f"It has: {known}.",
        )


def _typed(name: str, value: Any, kind: Any, file) -> Any:
    """The value as the field's type; a whole number is a number, a list is a tuple, nothing else is converted."""
    choices = [choice for choice in get_args(kind) if choice is not NoneType] or [kind]
    if get_origin(kind) is tuple:
        inner, *rest = get_args(kind)
        length = None if rest == [...] else 1 + len(rest)
        if isinstance(value, list | tuple) and length in (None, len(value)):
            return tuple(_typed(name, item, inner, file) for item in value)
        raise InvalidParameterError(
            f"{name} is a list" + (f" of {length}" if length else ""), file=file, value=repr(value)
        )
    if value is None and len(choices) < len(get_args(kind)):
        return None
    (wanted,) = choices
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is str and name == "held_out" and isinstance(value, int | float):
        return str(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise InvalidParameterError(f"{name} is {WORDS[wanted]}", file=file, value=repr(value))
    return value


def keep(config: Training, folder: Path) -> Path:
    """Write the configuration in force as config.json, from which the run can be repeated."""
    text = json.dumps({"method": config.method, **asdict(config)}, indent=2) + "\n"
    path = folder / "config.json"
    write_text(path, text)
    return path
