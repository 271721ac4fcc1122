"""The command line: `biascorr correct | apply | normalize | status | report | methods | run | train | bench ...`."""

from __future__ import annotations

import json
import sys

import click

from biascorr_pydra import __version__
from biascorr_pydra.errors import (
    BiasCorrError,
    BrokenMethodError,
    InvalidParameterError,
    UnknownMethodError,
    WeightsError,
)
from biascorr_pydra.interfaces.pydra.options import name_and_value
from biascorr_pydra.interfaces.pydra.run import run
from biascorr_pydra.methods import DEFAULT_METHOD, get_corrector, method_names
from biascorr_pydra.methods.registry import clashes
from biascorr_pydra.methods.spec import NO_FALLBACK

from .bench import bench
from .normalize import normalize, normalize_cohort
from .train import train

__all__ = ["main"]

FILE = click.Path(path_type=str)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="biascorr")
def cli():
    """Bias-field correction of MR images and BIDS cohorts."""


cli.add_command(run)
cli.add_command(train)
cli.add_command(bench)
cli.add_command(normalize)
cli.add_command(normalize_cohort)


def main() -> None:
    """Entry point of the console script `biascorr`: errors of use exit with 2, of data with 1, without traceback."""
    try:
        cli(prog_name="biascorr")
    except (UnknownMethodError, InvalidParameterError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except BiasCorrError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _options(context, parameter, values: tuple[str, ...]) -> dict:
    """NAME=VALUE pairs, values read as JSON where they are JSON."""
    try:
        return dict(name_and_value(text) for text in values)
    except InvalidParameterError as error:
        raise click.BadParameter(str(error)) from error


@cli.command()
@click.argument("in_file", metavar="IN", type=FILE)
@click.argument("out_file", metavar="OUT", type=FILE)
@click.option("--method", default=DEFAULT_METHOD, show_default=True, help="See `biascorr methods`.")
@click.option("--preset", help="A named set of the method's parameters.")
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_options,
    help="One parameter, as JSON: iterations=[50,20]; repeatable.",
)
@click.option("--mask-file", type=FILE, help="Where to estimate the field.")
@click.option("--weight-file", type=FILE, help="How much each voxel counts (n4, ants-n4).")
@click.option("--bias-file", type=FILE, help="Also write the bias field (mean 1 over the mask or the detected head).")
@click.option("--record-file", type=FILE, help="Also write what was done and found, as JSON.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="For methods that draw random numbers.")
@click.option("--average-frames", is_flag=True, help="IN is a 4-D series: one field, from the mean of its frames.")
@click.option("--gate/--no-gate", default=True, help="Judge the field; divide out only one that is accepted.")
@click.option(
    "--fallback",
    default=NO_FALLBACK,
    show_default=True,
    metavar="none|METHOD[:PRESET]",
    help="Whose field takes the place of a rejected one, or of a method that refuses the image.",
)
@click.option("--check-response", is_flag=True, help="Also judge by a known extra field (one estimate more).")
@click.option(
    "--uncertainty-file", type=FILE, help="Also write how far mirror images' fields are apart (three estimates more)."
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option("-v", "--verbose", is_flag=True, help="Tell of each level of N4 as it ends.")
def correct(verbose, **arguments):
    """Correct the bias field of the 3-D image IN and write OUT (.nii or .nii.gz, float32, header kept).

    A field that is negligible, or rejected without a fallback, leaves the image as it is; a warning says so.
    """
    from biascorr_pydra.correction.correct import correct_file

    progress = _tell if verbose else None
    if verbose and not get_corrector(arguments["method"]).reports_progress:
        click.echo(f"{arguments['method']} has no levels to tell of; n4 has.", err=True)
    record = correct_file(arguments.pop("in_file"), arguments.pop("out_file"), **arguments, progress=progress)
    for warning in record.warnings:
        click.echo(f"Warning: {warning}", err=True)
    span = f"{record.field['p05']:.3f} to {record.field['p95']:.3f} (5th to 95th percentile)"
    verdict = record.gate["verdict"]
    click.echo(
        f"{record.method} {record.method_version}: {verdict}, field {span}, {sum(record.runtime_s.values()):.1f} s"
    )


def _tell(scan: int, level: int, facts) -> None:
    how = "converged" if facts.converged else "did not converge"
    measure = "not run" if facts.convergence is None else f"{facts.convergence:.2g}"
    click.echo(f"level {level + 1}: {facts.iterations} iterations, {how} ({measure})", err=True)


@cli.command()
@click.argument("bias_file", metavar="BIAS", type=FILE)
@click.argument("in_file", metavar="IN", type=FILE)
@click.argument("out_file", metavar="OUT", type=FILE)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
def apply(bias_file, in_file, out_file, overwrite):
    """Divide IN, 3-D or 4-D, by the field BIAS on the same grid and write OUT."""
    from biascorr_pydra.correction.apply import apply_file

    apply_file(bias_file, in_file, out_file, overwrite=overwrite)


@cli.command()
@click.argument("out_dir", metavar="OUT", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Every row, as JSON.")
@click.option("--all", "everything", is_flag=True, help="List also what is done.")
def status(out_dir, as_json, everything):
    """Tell the state of every scan of the cohort in OUT as its files say now, also while a run is going on.

    Exits with 0 if everything is done, 1 if not.
    """
    from collections import Counter

    from biascorr_pydra.cohort import status as table

    rows, run_in_words = table.now(out_dir)
    good = all(row.state in table.GOOD for row in rows)
    if as_json:
        click.echo(json.dumps({"run": run_in_words, "rows": [row._asdict() for row in rows]}, indent=2))
        sys.exit(0 if good else 1)
    counts = Counter(row.state for row in rows)
    click.echo(run_in_words)
    for state, meaning in table.STATES.items():
        if counts[state]:
            click.echo(f"{counts[state]:6d} {state:<12} {meaning}")
    for row in rows:
        if everything or row.state not in table.QUIET:
            click.echo(f"{row.state}  {row.scan}  {row.method}  {row.reason.removesuffix('n/a')}".rstrip())
    sys.exit(0 if good else 1)


@cli.command()
@click.argument("out_dir", metavar="OUT", type=FILE)
@click.option("--figures", type=FILE, metavar="DIR", help="Also write the plots for papers, as PNG and SVG.")
@click.option(
    "--threshold", type=float, default=None, metavar="Z", help="Robust z within a site of an outlier.  [default: 3.5]"
)
@click.option("--mriqc", type=FILE, metavar="TSV", help="MRIQC's group table, to be joined to the scans.")
@click.option(
    "--participants",
    type=FILE,
    metavar="TABLE",
    help="Names the sites; by default participants.tsv of the source data set.",
)
@click.option("--scan-pages/--no-scan-pages", default=True, show_default=True, help="Also write the scans' pages.")
def report(out_dir, figures, **options):
    """Make the report of the cohort, or of the study of several, in OUT from its written files, at any time.

    Writes OUT/report.html, OUT/metrics.tsv, and tables and the scans' pages in OUT/reports.
    """
    from biascorr_pydra.report import write_report

    paths = write_report(out_dir, figures=figures, **options)
    click.echo(f"Metrics: {paths.metrics_tsv}\nReport:  {paths.html}")
    if figures:
        click.echo(f"Figures: {figures}")
    with open(paths.everything.with_name("problems.tsv"), encoding="utf-8") as table:
        problems = sum(1 for _ in table) - 1  # a cell never holds a line break
    if problems:
        click.echo(f"Problems with files: {problems}; see the page, or reports/problems.tsv", err=True)


@cli.command()
@click.argument("names", nargs=-1, metavar="[METHOD]...")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def methods(names, as_json):
    """List the correction methods, with presets, parameters and weights; a METHOD named here with its whole card."""
    listed = [_describe(name) for name in names or method_names()]
    listed += [_broken(name, error) for name, error in clashes().items() if name in names or not names]
    if as_json:
        click.echo(json.dumps(listed, indent=2, default=str))
    else:
        for entry in listed:
            _tell_of_method(entry, whole=bool(names))
    sys.exit(1 if any("error" in entry or "error" in (entry["weights"] or {}) for entry in listed) else 0)


def _broken(name: str, error: BrokenMethodError) -> dict:
    return {"name": name, "error": str(error), "weights": None}


def _tell_of_method(entry: dict, *, whole: bool) -> None:
    if "error" in entry:
        click.echo(f"{entry['name']}\n    {entry['error']}", err=True)
        return
    mark = " (default)" if entry["name"] == DEFAULT_METHOD else ""
    click.echo(f"{entry['name']} {entry['version']}{mark}\n    {entry['summary']}")
    click.echo(f"    presets: {', '.join(entry['presets'])}")
    if whole:
        for name, parameter in entry["parameters"].items():
            click.echo(f"    parameter {name} [{parameter['default']}]: {parameter['help']}")
    found = entry["weights"]
    if found and "error" in found:
        click.echo(f"    weights: {found['error']}", err=True)
    elif found:
        from biascorr_pydra.weights import in_words

        click.echo(f"    weights: {found['name']}, {found['megabytes']} MB, sha256 {found['sha256']}")
        short = ("trained on", "training", "when to use it")
        for line in in_words(found["card"]):
            if whole or line.startswith(short):
                click.echo(f"    {line}")


def _describe(name: str) -> dict:
    from dataclasses import fields

    try:
        cls = get_corrector(name)
    except BrokenMethodError as error:
        return _broken(name, error)
    entry = {
        "name": cls.name,
        "version": cls.version,
        "summary": cls.summary,
        "presets": {preset: dict(values) for preset, values in cls.presets.items()},
        "parameters": {f.name: {"default": f.default, "help": f.metadata.get("help", "")} for f in fields(cls)},
        "weights": None,
    }
    if cls.weights:
        from biascorr_pydra import weights

        try:
            entry["weights"] = weights.describe(cls.weights)
        except WeightsError as error:
            entry["weights"] = {"name": cls.weights, "error": str(error)}
    return entry
