"""The files of an evaluation: tables with their data dictionaries, the figure, and the summary in words.

Slow to import (pandas, matplotlib): loaded only by those who evaluate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from biascorr_pydra.images.files import write_bytes, write_text
from biascorr_pydra.report.verdicts import columns_of_verdicts

from .columns import PROBLEM_COLUMNS, comparison_dictionary, scan_dictionary
from .design import EvaluationPaths, to_json
from .evaluation import evaluate
from .figure import draw_changes
from .text import summary, to_html, to_markdown

__all__ = ["read_problems", "write_evaluation"]

MISSING = "n/a"


def write_evaluation(out_dir: str | Path) -> EvaluationPaths:
    """Write the tables with their data dictionaries, the figure and the summary into ``OUT/evaluation``.

    Raises
    ------
    BIDSError
        There is no readable design.
    OutputError
        A file cannot be written.
    """
    paths = EvaluationPaths.inside(out_dir)
    evaluation = evaluate(out_dir)
    dictionaries = {
        "scans": scan_dictionary(),
        "sites": comparison_dictionary("site", int(evaluation.sites["p"].notna().sum())),
        "overall": comparison_dictionary("unit", int(evaluation.overall["p"].notna().sum())),
        "verdicts": {
            "suffix": {"Description": "BIDS suffix: the contrast."},
            "site": {"Description": 'Site; "all sites" for all of them.'},
            **columns_of_verdicts(),
        },
        "problems": PROBLEM_COLUMNS,
    }
    frames = {"scans": evaluation.scans, "sites": evaluation.sites, "overall": evaluation.overall}
    verdicts = [*evaluation.verdicts, *evaluation.site_verdicts]
    frames["verdicts"] = pd.DataFrame(verdicts, columns=list(dictionaries["verdicts"]))
    frames["problems"] = pd.DataFrame(evaluation.problems, columns=list(PROBLEM_COLUMNS))
    for name, frame in frames.items():
        write_text(paths.table(name), _tsv(frame))
        write_text(paths.table(name).with_suffix(".json"), to_json(dictionaries[name]))
    picture = draw_changes(evaluation)
    if picture is None:
        paths.figure.unlink(missing_ok=True)
    else:
        write_bytes(paths.figure, picture)
    blocks = summary(evaluation, has_figure=picture is not None)
    write_text(paths.markdown, to_markdown(blocks, paths.figure.name))
    write_text(paths.html, to_html(blocks, picture))
    return paths


def read_problems(out_dir: str | Path) -> list[list[str]]:
    """Kind, place and text of each problem in the evaluation's problems.tsv."""
    lines = EvaluationPaths.inside(out_dir).table("problems").read_text().splitlines()
    return [line.split("\t") for line in lines[1:]]


def _tsv(frame: pd.DataFrame) -> str:
    lines = ["\t".join(frame.columns)]
    lines += ["\t".join(_cell(value) for value in row) for row in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value != value:  # NaN: pandas' spelling of undefined
        return MISSING
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(float(value))
    # BIDS tables know no quoting, so that a tab or a line end inside a text must go.
    return " ".join(str(value).split()) or MISSING
