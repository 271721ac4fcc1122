"""`biascorr methods`: the correction methods and their weights."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import Any

import click

from biascorr_pydra import weights
from biascorr_pydra.errors import BrokenMethodError, WeightsError
from biascorr_pydra.methods import DEFAULT_METHOD, get_corrector, method_names
from biascorr_pydra.methods.registry import clashes
from biascorr_pydra.methods.spec import MethodSpec

__all__ = ["methods"]


@click.command()
@click.argument("names", nargs=-1, metavar="[METHOD]...")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def methods(names: tuple[str, ...], as_json: bool) -> None:
    """List the correction methods, with presets, parameters and weights; a METHOD named here with its whole card."""
    listed = [_describe(MethodSpec.parse(name).method) for name in names or method_names()]
    listed += [_broken(name, error) for name, error in clashes().items() if name in names or not names]
    if as_json:
        click.echo(json.dumps(listed, indent=2, default=str))
    else:
        for entry in listed:
            _show(entry, whole=bool(names))
    sys.exit(1 if any("error" in entry or "error" in (entry["weights"] or {}) for entry in listed) else 0)


def _broken(name: str, error: BrokenMethodError) -> dict[str, Any]:
    return {"name": name, "error": str(error), "weights": None}


def _show(entry: dict[str, Any], *, whole: bool) -> None:
    if "error" in entry:
        click.echo(f"{entry['name']}\n    {entry['error']}", err=True)
        return
    mark = " (default)" if entry["name"] == DEFAULT_METHOD else ""
    click.echo(f"{entry['name']} {entry['version']}{mark}\n    {entry['summary']}")
    click.echo(f"    presets: {', '.join(entry['presets'])}")
    if whole:
        for name, parameter in entry["parameters"].items():
            click.echo(f"    parameter {name} [{parameter['default']}]: {parameter['help']}")
    if entry["weights"]:
        _show_weights(entry["weights"], whole=whole)


def _show_weights(about: dict[str, Any], *, whole: bool) -> None:
    if "error" in about:
        click.echo(f"    weights: {about['error']}", err=True)
        return
    click.echo(f"    weights: {about['name']}, {about['megabytes']} MB, sha256 {about['sha256']}")
    short = ("trained on", "training", "when to use it")
    for line in weights.in_words(about["card"]):
        if whole or line.startswith(short):
            click.echo(f"    {line}")


def _describe(name: str) -> dict[str, Any]:
    try:
        cls = get_corrector(name)
    except BrokenMethodError as error:
        return _broken(name, error)
    entry: dict[str, Any] = {
        "name": cls.name,
        "version": cls.version,
        "summary": cls.summary,
        "presets": {preset: dict(values) for preset, values in cls.presets.items()},
        "parameters": {f.name: {"default": f.default, "help": f.metadata.get("help", "")} for f in fields(cls)},
        "weights": None,
    }
    if cls.weights:
        try:
            entry["weights"] = weights.describe(cls.weights)
        except WeightsError as error:
            entry["weights"] = {"name": cls.weights, "error": str(error)}
    return entry
