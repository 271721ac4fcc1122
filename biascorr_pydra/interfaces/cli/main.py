"""The command line: `biascorr correct | apply | normalize | status | report | methods | run | train | bench ...`."""

from __future__ import annotations

import sys

import click

from biascorr_pydra import __version__
from biascorr_pydra.errors import BiasCorrError, InvalidParameterError, UnknownMethodError
from biascorr_pydra.interfaces.pydra.run import run

from .bench import bench
from .cohort import report, status
from .correct import apply, correct
from .methods import methods
from .normalize import normalize, normalize_cohort
from .train import train

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="biascorr")
def cli() -> None:
    """Bias-field correction of MR images and BIDS cohorts."""


for command in (apply, bench, correct, methods, normalize, normalize_cohort, report, run, status, train):
    cli.add_command(command)


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
