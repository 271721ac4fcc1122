"""`biascorr normalize` and `biascorr normalize-cohort`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from biascorr_pydra.anatomy.brain import METHODS as BRAIN_METHODS

from .fields import FILE, device_option, overwrite_option

__all__ = ["normalize", "normalize_cohort"]

SPEEDS = ("paper", "fast")


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--speed", type=click.Choice(SPEEDS), default="paper", show_default=True, help="Stride 8 or 16."),
        click.option("--weights-file", type=FILE, help="Weights of your own (.safetensors), instead of the package's."),
        device_option(),
        overwrite_option(),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("in_file", metavar="IN", type=FILE)
@click.argument("out_file", metavar="OUT", type=FILE)
@click.option("--with", "others", type=(FILE, FILE), multiple=True, metavar="IN OUT", help="A further modality.")
@click.option("--mask-file", type=FILE, help="The brain; without it, IN is taken as stripped.")
@click.option("--dseg-file", type=FILE, help="Also write the segmentation (1 GM, 2 WM, 3 CSF).")
@click.option("--record-file", type=FILE, help="Also write what was done and found, as JSON.")
@_common
def normalize(in_file: str, out_file: str, others: tuple[tuple[str, str], ...], **options: Any) -> None:
    """Normalize the scan IN by DeepNormalize and write OUT: intensities from 0 to 1, contrast changed by design.

    OUT is no image corrected for the bias field; `biascorr correct --method deepnormalize` makes one.
    """
    from biascorr_pydra.normalize.file import normalize_file

    ins, outs = [in_file, *(pair[0] for pair in others)], [out_file, *(pair[1] for pair in others)]
    record = normalize_file(ins, outs, **options)
    for warning in record.warnings:
        click.echo(f"Warning: {warning}", err=True)
    volumes = ", ".join(f"{tissue} {ml:.0f} ml" for tissue, ml in record.volumes_ml.items())
    click.echo(f"deepnormalize, stride {record.method['stride']}: {volumes}, {record.runtime_s:.1f} s")


@click.command("normalize-cohort")
@click.argument("bids_dir", metavar="BIDS", type=FILE)
@click.argument("out_dir", metavar="OUT", type=FILE)
@click.option("--participant-label", "participants", multiple=True, help="With or without sub-; repeatable.")
@click.option("--suffix", default="T1w", show_default=True, help="The contrast; the package's weights are for T1w.")
@click.option("--skull-strip", type=click.Choice(BRAIN_METHODS), default="auto", show_default=True)
@click.option("--derivatives", type=FILE, help="Data set with brain masks, for given; of a study, inside each one.")
@_common
def normalize_cohort(bids_dir: str, out_dir: str, **options: Any) -> None:
    """Normalize the scans of BIDS, a data set or a folder of one a site, into OUT/deepnormalize-normalized.

    `biascorr report OUT` then compares the sites' intensities before and after. Exits with 1 if a scan failed.
    """
    from biascorr_pydra.normalize.cohort import normalize_cohort as run

    def progress(data_set: str, row: Any) -> None:
        scan = f"{data_set}/{row.scan}" if data_set else row.scan
        click.echo(f"{row.state}  {scan}  {row.reason.removesuffix('n/a')}".rstrip(), err=True)

    outcome = run(bids_dir, out_dir, progress=progress, **options)
    click.echo(f"{outcome.done} normalized, {len(outcome.failed)} failed; next: biascorr report {out_dir}")
    sys.exit(1 if outcome.failed else 0)
