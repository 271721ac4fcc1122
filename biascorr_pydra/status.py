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
    rows = []
    for job in plan.jobs:
        for spec in plan.settings.methods:
            state = "done" if (job.relative, spec) in pending else "cached"
            row = Row(job.relative, spec.label, state)
            problem = plan.problems.get(job.relative)
            rows.append(row._replace(state="failed", reason=problem) if problem else row)
    return rows


def collect(plan: Plan, reasons: Mapping[tuple[str, str], str], run_id: str) -> list[Row]:
    """The table as the files on disk are, with the reasons found for what this run should have made and did not."""
    rows, jobs = [], {job.relative: job for job in plan.jobs}
    for row in expected(plan):
        key, dataset = plan.keys[row.scan, row.method], plan.settings.out_dir / row.method
        if row.state == "done" and not is_done(jobs[row.scan], dataset, key, run_id):
            reason = reasons.get((row.scan, row.method), "not run")
            row = row._replace(state="failed", reason=" ".join(reason.split()))
        rows.append(row)
    return rows


def write(out_dir: Path, rows: Iterable[Row]) -> Path:
    """Write the table, whole or not at all; rows of scans and methods that are not among ``rows`` are kept."""
    path = Path(out_dir) / GROUP_FILES[0]
    merged = {(row.scan, row.method): row for row in [*_read(path), *rows]}
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    table.writerow(STATUS_COLUMNS)
    table.writerows(merged[name] for name in sorted(merged))
    write_atomic(path, lambda stream: stream.write(text.getvalue().encode()))
    return path


def _read(path: Path) -> list[Row]:
    try:
        lines = list(csv.reader(io.StringIO(path.read_text()), delimiter="\t"))
    except (OSError, ValueError):
        return []
    return [Row(*line) for line in lines[1:] if len(line) == len(STATUS_COLUMNS)]
