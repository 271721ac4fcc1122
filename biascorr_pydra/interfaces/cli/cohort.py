"""`biascorr status` and `biascorr report`: what a cohort's written files say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from .fields import FILE

__all__ = ["report", "status"]


@click.command()
@click.argument("out_dir", metavar="OUT", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Every row, as JSON.")
@click.option("--all", "everything", is_flag=True, help="List also what is done.")
def status(out_dir: str, as_json: bool, everything: bool) -> None:
    """Tell the state of every scan of the cohort in OUT as its files say now, also while a run is going on.

    Exits with 0 if everything is done, 1 if not.
    """
    from biascorr_pydra.cohort import status as table

    rows, run_in_words = table.now(out_dir)
    if as_json:
        click.echo(json.dumps({"run": run_in_words, "rows": [row._asdict() for row in rows]}, indent=2))
    else:
        click.echo(run_in_words)
        _show_rows(rows, everything)
    sys.exit(0 if all(row.state in table.GOOD for row in rows) else 1)


def _show_rows(rows: list[Any], everything: bool) -> None:
    """How many scans are in each state, and those that want attention."""
    from collections import Counter

    from biascorr_pydra.cohort import status as table

    counts = Counter(row.state for row in rows)
    for state in table.STATES:
        if counts[state]:
            click.echo(f"{counts[state]:6d} {state:<12} {table.meaning(state, rows)}")
    for row in rows:
        if everything or row.state not in table.QUIET:
            click.echo(f"{row.state}  {row.scan}  {row.method}  {row.reason.removesuffix('n/a')}".rstrip())


@click.command()
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
@click.option(
    "--ratings",
    type=FILE,
    metavar="TSV",
    help="Readers' ratings, saved from the page; excluded scans are not compared.",
)
@click.option("--scan-pages/--no-scan-pages", default=True, show_default=True, help="Also write the scans' pages.")
@click.option(
    "--study", is_flag=True, help="The output folders in OUT are the data sets of one study; OUT remembers it."
)
def report(out_dir: str, figures: str | None, **options: Any) -> None:
    """Make the report of the cohort, or of the study of several, in OUT from its written files, at any time.

    Scans that the judge has not compared as they are now are judged first, unless a run is at work.
    Writes OUT/report.html, OUT/metrics.tsv, and tables and the scans' pages in OUT/reports.
    """
    from biascorr_pydra.interfaces.judging import judge_study_aloud
    from biascorr_pydra.report import write_report

    judge_study_aloud(Path(out_dir), study=options["study"])
    paths = write_report(out_dir, figures=figures, **options)
    click.echo(f"Metrics: {paths.metrics_tsv}\nReport:  {paths.html}")
    if figures:
        click.echo(f"Figures: {figures}")
    with open(paths.everything.with_name("problems.tsv"), encoding="utf-8") as table:
        problems = sum(1 for _ in table) - 1  # a cell never holds a line break
    if problems:
        click.echo(f"Problems with files: {problems}; see the page, or reports/problems.tsv", err=True)
