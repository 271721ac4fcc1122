"""`biascorr correct` and `biascorr apply`: one image."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from biascorr_pydra.bids import NOT_CORRECTED
from biascorr_pydra.correction.options import help_of
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.spec import MethodSpec

from .fields import FILE, correction_options, file_option, overwrite_option, sentence

if TYPE_CHECKING:
    from biascorr_pydra.correction.record import Correction

__all__ = ["LEFT_AS_IT_IS", "apply", "correct"]

#: What `biascorr correct --strict` ends with where no field was divided out; 1 is bad data, 2 a wrong option.
LEFT_AS_IT_IS = 3


@click.command()
@click.argument("in_file", metavar="IN", type=FILE)
@click.argument("out_file", metavar="OUT", type=FILE)
@file_option("mask_file")
@file_option("weight_file")
@file_option("bias_file", "also write ")
@file_option("record_file", "also write ")
@click.option(
    *("--report", "--report-file", "report_file"),
    type=FILE,
    metavar="PAGE.html",
    help=sentence(f"also write {help_of('report_file')}"),
)
@click.option("--suffix", metavar="SUFFIX", help=sentence(help_of("suffix")))
@click.option(
    "--rejected-file",
    type=FILE,
    help=f"Where {help_of('rejected_file')}, goes, if there is one.  [default: OUT_rejected-biasfield.nii.gz]",
)
@correction_options
@overwrite_option()
@click.option("-v", "--verbose", is_flag=True, help="Tell of each level of N4 as it ends.")
def correct(verbose: bool, strict: bool, in_file: str, out_file: str, method: str, **options: Any) -> None:
    """Correct the bias field of the 3-D image IN and write OUT (.nii or .nii.gz, float32, header kept).

    A field that is negligible, or rejected without a fallback, leaves the image as it is. A warning says so, and what
    can be done; the field itself is kept in OUT_rejected-biasfield.nii.gz. With --strict the command then ends with 3.
    """
    from biascorr_pydra.single import correct_file, rejected_file_beside

    if verbose and not get_corrector(MethodSpec.parse(method).method).reports_progress:
        click.echo(f"{method} has no levels to tell of; n4 has.", err=True)
    progress = _show_level if verbose else None
    record = correct_file(in_file, out_file, method=method, **options, progress=progress)
    for warning in record.warnings:
        click.echo(f"Warning: {warning}", err=True)
    span = f"{record.field['p05']:.3f} to {record.field['p95']:.3f} (5th to 95th percentile)"
    verdict = record.gate["verdict"]
    click.echo(
        f"{record.method} {record.method_version}: {verdict}, field {span}, {sum(record.runtime_s.values()):.1f} s"
    )
    if record.rejected_field is not None:
        kept = options["rejected_file"] or rejected_file_beside(out_file)
        shown = "" if options["report_file"] else "; --report PAGE.html shows it"
        click.echo(f"The field that was not divided out is in {kept}{shown}.", err=True)
    _say_what_to_do(record)
    if strict and record.gate["applied"] == NOT_CORRECTED:
        click.echo("Error: the image was left as it is, and --strict was given.", err=True)
        sys.exit(LEFT_AS_IT_IS)


def _say_what_to_do(record: Correction) -> None:
    if record.gate["next_steps"]:
        click.echo("What you can do, with the same command and --overwrite:", err=True)
    for step in record.gate["next_steps"]:
        click.echo(f"  - {step}", err=True)


def _show_level(scan: int, level: int, facts: Any) -> None:
    outcome = "converged" if facts.converged else "did not converge"
    measure = "not run" if facts.convergence is None else f"{facts.convergence:.2g}"
    click.echo(f"level {level + 1}: {facts.iterations} iterations, {outcome} ({measure})", err=True)


@click.command()
@click.argument("bias_file", metavar="BIAS", type=FILE)
@click.argument("in_file", metavar="IN", type=FILE)
@click.argument("out_file", metavar="OUT", type=FILE)
@overwrite_option("Replace OUT if it exists.")
def apply(bias_file: str, in_file: str, out_file: str, overwrite: bool) -> None:
    """Divide IN, 3-D or 4-D, by the field BIAS on the same grid and write OUT."""
    from biascorr_pydra.correction.apply import apply_file

    apply_file(bias_file, in_file, out_file, overwrite=overwrite)
