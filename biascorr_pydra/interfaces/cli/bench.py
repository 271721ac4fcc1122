"""`biascorr bench`: the benchmark from the shell."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from biascorr_pydra.bench.choices import BRAINS, HEADS, KINDS, MASKS
from biascorr_pydra.errors import BrokenMethodError
from biascorr_pydra.methods import REFERENCE_METHOD, get_corrector, method_names

from .fields import device_option, overwrite_option

__all__ = ["bench"]

FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--data", multiple=True, required=True, type=FOLDER, metavar="DIR", help="See above; repeatable.")
@click.option(
    "--derivatives",
    multiple=True,
    type=FOLDER,
    metavar="DIR",
    help="Masks, segmentations and true fields of a BIDS data set; repeatable, in the order of --data.",
)
@click.option("--out", default="bench", show_default=True, type=FOLDER, metavar="OUT", help="Folder of the results.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="METHOD[:PRESET]",
    help="Repeatable; 'n4:*' is n4 with each of its presets. By default every method with its default preset, except "
    "ants-n4, which takes minutes a scan.",
)
@click.option(
    "--reference", default=REFERENCE_METHOD, show_default=True, help="The method that others are tested against."
)
@click.option(
    "--mask", "masks", multiple=True, type=click.Choice(MASKS), help="What methods are given; repeatable, default both."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of heads, injected fields and bootstrap.")
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Heads of each kind, injected fields a scan.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most N scans of each --data, evenly spaced.")
@click.option("--select", multiple=True, metavar="GLOB", help="Only paths that match, as in '*_T1w*'; repeatable.")
@click.option(
    "--kind", type=click.Choice(KINDS), default="auto", show_default=True, help="What --data holds, if it is mistaken."
)
@click.option("--contrast", metavar="SUFFIX", help="T1w, T2w ... of images whose names do not end in one.")
@click.option(
    "--heads", "heads", multiple=True, type=click.Choice(HEADS), help="Simulated heads; repeatable, default both."
)
@click.option(
    "--brain",
    type=click.Choice(BRAINS),
    default="auto",
    show_default=True,
    help="How brain masks are made where none is given; auto: deepbet for T1w, else template; none: no mask, scores "
    "over the detected head.",
)
@device_option(default="cpu")
@click.option("--threads", type=click.IntRange(min=1), help="For torch and ITK; by default all.")
@overwrite_option("Begin anew: measure everything again.")
def bench(
    data: tuple[Path, ...],
    derivatives: tuple[Path, ...],
    out: Path,
    methods: tuple[str, ...],
    masks: tuple[str, ...],
    heads: tuple[str, ...],
    threads: int | None,
    reference: str,
    device: str,
    overwrite: bool,
    **sources: Any,
) -> None:
    """Measure methods on your data: accuracy, harm, tissue contrast, time, memory.

    DIR is one of three: a BIDS data set; a folder of label maps (FreeSurfer's numbers; heads are simulated with no,
    a smooth and a rough field); or a folder of images, with NAME_mask, NAME_dseg and NAME_biasfield beside image
    NAME where there are any. Where the true field is not known, a known field is injected, and the method is to find
    that one.

    Run it again to go on: rows that were measured with the same data, version, weights and seed are kept. Exits with
    1 if a row has an error; the others are there.
    """
    from biascorr_pydra.bench import Sources, run_bench
    from biascorr_pydra.bench.environment import set_threads

    if threads:
        set_threads(threads)
    outcome = run_bench(
        Sources(data, derivatives, heads=heads or HEADS, **sources),
        out,
        methods=methods or [name for name in method_names() if _benchmarked(name)],
        reference=reference,
        masks=masks or MASKS,
        device=device,
        overwrite=overwrite,
        command=f"biascorr {shlex.join(sys.argv[1:])}",
        tell=lambda line: click.echo(line, err=True),
    )
    if outcome.dropped:
        click.echo(f"{outcome.dropped} rows of data that have changed since were dropped", err=True)
    click.echo(f"{outcome.measured} measured, {outcome.kept} kept, {outcome.failed} failed: {out / 'bench.md'}")
    sys.exit(1 if outcome.failed else 0)


def _benchmarked(name: str) -> bool:
    """Whether a method is scored where none is named; one that is broken is named and left out."""
    try:
        return get_corrector(name).benchmarked
    except BrokenMethodError as error:
        click.echo(f"left out: {error}", err=True)
        return False
