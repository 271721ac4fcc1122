"""`biascorr correct` and `biascorr apply`: one image."""

from __future__ import annotations

from typing import Any

import click

from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.spec import MethodSpec

from .fields import FILE, correction_options, file_option, overwrite_option

__all__ = ["apply", "correct"]


@click.command()
@click.argument("in_file", metavar="IN", type=FILE)
@click.argument("out_file", metavar="OUT", type=FILE)
@file_option("mask_file")
@file_option("weight_file")
@file_option("bias_file", "also write ")
@file_option("record_file", "also write ")
@correction_options
@overwrite_option()
@click.option("-v", "--verbose", is_flag=True, help="Tell of each level of N4 as it ends.")
def correct(verbose: bool, in_file: str, out_file: str, method: str, **options: Any) -> None:
    """Correct the bias field of the 3-D image IN and write OUT (.nii or .nii.gz, float32, header kept).

    A field that is negligible, or rejected without a fallback, leaves the image as it is; a warning says so.
    """
    from biascorr_pydra.correction.correct import correct_file

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
