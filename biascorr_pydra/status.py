"""The status table of a cohort: one row per scan and method, in OUT/status.tsv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from .bids import GROUP_FILES, STATUS_COLUMNS
from .image import write_atomic
from .plan import Plan, is_done

__all__ = ["Row", "collect", "expected", "write"]


class Row(NamedTuple):
    """State of one scan under one method: done (in this run), cached (before it), or failed with a reason."""

    scan: str
    method: str
    state: str
    reason: str = "n/a"


def expected(plan: Plan) -> list[Row]:
    """The table as it will be if nothing fails."""
    pending = {(job.relative, spec) for job, specs in plan.pending for spec in specs}
    return [
        Row(job.relative, spec.label, "done" if (job.relative, spec) in pending else "cached")
        for job in plan.jobs
        for spec in plan.settings.methods
    ]


def collect(plan: Plan, reasons: Mapping[tuple[str, str], str]) -> list[Row]:
    """The table as the files on disk are, with the reasons found for what is not there."""
    rows, jobs = [], {job.relative: job for job in plan.jobs}
    for row in expected(plan):
        if not is_done(jobs[row.scan], plan.settings.out_dir / row.method, plan.keys[row.scan, row.method]):
            reason = reasons.get((row.scan, row.method), "not run")
            row = row._replace(state="failed", reason=" ".join(reason.split()))
        rows.append(row)
    return rows


def write(out_dir: Path, rows: Iterable[Row]) -> Path:
    """Write the table, whole or not at all."""
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    table.writerow(STATUS_COLUMNS)
    table.writerows(rows)
    path = Path(out_dir) / GROUP_FILES[0]
    write_atomic(path, lambda stream: stream.write(text.getvalue().encode()))
    return path
