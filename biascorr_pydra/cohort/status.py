"""The status table of a cohort: one row per scan and data set, in OUT/status.tsv, from the start of a run on.

The table is written when a run starts and when it ends. What happened in between is read from the outputs themselves,
by the keys that the run left in OUT/.biascorr/plan.json: so the state of a cohort can be asked for at any time, also
after the run was killed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from biascorr_pydra import lock
from biascorr_pydra.bids import GROUP_FILES, NORMALIZED, NOT_CORRECTED, STATUS_COLUMNS, make_folder, output_folders
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.images.files import write_text
from biascorr_pydra.quality import NEGLIGIBLE, REJECTED

from .plan import Plan, work_of

__all__ = [
    "STATES",
    "Row",
    "begin",
    "collect",
    "expected",
    "has_begun",
    "judged",
    "meaning",
    "now",
    "outdated",
    "write",
]

# each with what `biascorr status` says of it, of corrected and of normalized scans
STATES = {
    "done": "{done} in the last run",
    "cached": "{done} before it",
    "rejected": "the field was rejected; the image was passed on as it is or corrected by the fallback",
    "waiting": "to be {done} by the run that is going on",
    "interrupted": "not reached by the last run; the same command goes on from here",
    "skipped": "not an image that can be {done}",
    "failed": "not {done}, with the reason",
    "missing": "was {done}, but its files are no longer there; the same command makes them again",
}
# A rejected field is an outcome to look at, not a failure: the same command would end the same.
#: Remark on a scan that was done with other settings than those of the run that is to replace it.
OUTDATED = "done with other settings; not replaced yet"
GOOD = ("done", "cached", "skipped", "rejected")
QUIET = ("done", "cached", "skipped")


NO_REASON = "n/a"


class Row(NamedTuple):
    """State of one scan under one method, and the reason where there is one."""

    scan: str
    method: str
    state: str
    reason: str = NO_REASON


def meaning(state: str, rows: Iterable[Row]) -> str:
    """What it means that these rows, of corrected or of normalized scans or of both, are in this state."""
    words = {"normalized" if row.method == NORMALIZED else "corrected" for row in rows if row.state == state}
    return STATES[state].format(done=" or ".join(sorted(words)))


def expected(plan: Plan) -> list[Row]:
    """The table as it will be if nothing fails."""
    pending = {(job.relative, label) for job, labels in plan.pending for label in labels}
    rows = []
    for job in plan.jobs:
        problem = plan.problems.get(job.relative)
        for label in plan.labels:
            state = "done" if (job.relative, label) in pending else "cached"
            rows.append(Row(job.relative, label, "failed", problem) if problem else Row(job.relative, label, state))
    for scan, reason in plan.skipped.items():
        rows += [Row(scan, label, "skipped", reason) for label in plan.labels]
    return rows


def begin(plan: Plan) -> None:
    """Write the table as a run starts, and the keys by which its outputs are known.

    What was done before with other settings is done, by its old key, until it is replaced.
    """
    path = plan.out_dir / lock.FOLDER / "plan.json"
    make_folder(path.parent)
    keys = _keys(plan.out_dir)
    earlier = _earlier(plan)
    for job in plan.jobs:
        for label in plan.labels:
            record, name = plan.record_file(job, label).as_posix(), (job.relative, label)
            keys[f"{label}/{job.relative}"] = [record, plan.keys[name], *earlier.get(name, ())]
    write_text(path, json.dumps(keys, indent=0))
    rows = [row._replace(state="waiting") if row.state == "done" else row for row in expected(plan)]
    rows = [_outdated(row, plan.out_dir, keys) if (row.scan, row.method) in earlier else row for row in rows]
    write(plan.out_dir, rows, forget=plan.labels if plan.whole else ())


def _earlier(plan: Plan) -> dict[tuple[str, str], tuple[str]]:
    """The key of what is there, whole, but of other settings than this plan's, by scan and method."""
    keys = {}
    for job, labels in plan.pending:
        for label in labels:
            work = work_of(plan.out_dir / plan.record_file(job, label), plan.out_dir / label)
            if work is not None and work["key"] != plan.keys[job.relative, label]:
                keys[job.relative, label] = (work["key"],)
    return keys


def _outdated(row: Row, out_dir: Path, keys: Mapping[str, list[str]]) -> Row:
    """The row of what was done before with other settings, its field's verdict included."""
    row = _judged(row._replace(state="cached", reason=NO_REASON), out_dir, keys.get(f"{row.method}/{row.scan}"))
    return row._replace(reason=OUTDATED if row.reason == NO_REASON else f"{row.reason}; {OUTDATED}")


def outdated(out_dir: Path) -> dict[tuple[str, str], bool]:
    """Whether the files are at this moment still of other settings, by scan and method that a run was to make again."""
    rows = [row for row in _read(out_dir / GROUP_FILES[0]) if row.reason.endswith(OUTDATED)]
    keys = _keys(out_dir) if rows else {}
    current = [_now(row, out_dir, keys.get(f"{row.method}/{row.scan}"), going_on=False) for row in rows]
    return {(row.scan, row.method): row.reason.endswith(OUTDATED) for row in current}


def has_begun(plan: Plan) -> bool:
    """Whether the table and the keys are those of this plan."""
    keys = _keys(plan.out_dir)
    return all(keys.get(f"{label}/{scan}", ["", ""])[1] == key for (scan, label), key in plan.keys.items())


def collect(plan: Plan, reasons: Mapping[tuple[str, str], str], run_id: str) -> list[Row]:
    """The table as the files on disk are, with the reasons found for what this run should have made and did not."""
    rows, jobs = [], {job.relative: job for job in plan.jobs}
    for row in expected(plan):
        if row.state == "done" and not plan.is_done(jobs[row.scan], row.method, run_id):
            reason = reasons.get((row.scan, row.method), "not run")
            row = row._replace(state="failed", reason=" ".join(reason.split()))
        rows.append(row)
    return judged(plan.out_dir, rows)


def judged(out_dir: Path, rows: Iterable[Row]) -> list[Row]:
    """The rows with the gate's verdicts, from the files: a rejected field is a state, a negligible one a remark."""
    keys = _keys(out_dir)
    return [_judged(row, out_dir, keys.get(f"{row.method}/{row.scan}")) for row in rows]


def _judged(row: Row, out_dir: Path, known: list[str] | None) -> Row:
    if row.state not in ("done", "cached") or known is None:
        return row
    try:
        gate = json.loads((out_dir / known[0]).read_text())["gate"]
        verdict, reasons, applied = gate["verdict"], "; ".join(gate["reasons"]), gate["applied"]
    except (OSError, ValueError, KeyError, TypeError):
        return row  # absent or damaged: whether the files are whole is judged elsewhere
    if verdict == REJECTED:
        instead = "passed on as it is" if applied == NOT_CORRECTED else f"corrected by {applied}"
        return row._replace(state="rejected", reason=f"{reasons}; {instead}")
    return row._replace(reason=f"{verdict}: {reasons}") if verdict == NEGLIGIBLE else row


def write(out_dir: Path, rows: Iterable[Row], *, forget: Sequence[str] = ()) -> Path:
    """Write the table, whole or not at all; rows of scans and methods that are not among ``rows`` are kept.

    ``forget`` names methods of which only ``rows`` are to stay: their other scans are no longer in the data set.
    """
    path = Path(out_dir) / GROUP_FILES[0]
    kept = [row for row in _read(path) if row.method not in forget]
    merged = {(row.scan, row.method): row for row in [*kept, *rows]}
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    table.writerow(STATUS_COLUMNS)
    table.writerows(merged[name] for name in sorted(merged))
    write_text(path, text.getvalue())
    return path


def now(out_dir: str | Path) -> tuple[list[Row], str]:
    """The state of every scan of a cohort as its files say at this moment, and what is known of the run, in words.

    Raises
    ------
    BIDSError
        There is no status table in this folder, or it is no output folder: the right one is named if it lies in it.
    """
    out_dir = Path(out_dir)
    folders = [folder for folder in output_folders(out_dir) if (folder / GROUP_FILES[0]).is_file()]
    if not folders:
        raise BIDSError(
            f"no {GROUP_FILES[0]} in this folder",
            file=out_dir,
            next_step="Give the --out-dir of `pydra run workflows/correct_bids.py`.",
        )
    # One data set of a study of several is at work while the study is.
    holder = next((folder for folder in (out_dir, out_dir.parent) if lock.current(folder)), out_dir)
    going_on = lock.alive(holder)
    rows = []
    for folder in folders:
        keys = _keys(folder)
        for row in _read(folder / GROUP_FILES[0]):
            row = _now(row, folder, keys.get(f"{row.method}/{row.scan}"), going_on)
            rows.append(row if folder == out_dir else row._replace(scan=f"{folder.name}/{row.scan}"))
    facts = lock.current(holder)
    if going_on:
        return rows, f"A run is going on: {lock.describe(facts) or 'no word of which'}."
    return rows, f"The last run was killed: {lock.describe(facts)}." if facts else "The last run has ended."


def _now(row: Row, out_dir: Path, known: list[str] | None, going_on: bool) -> Row:
    if row.state not in ("waiting", "done", "cached", "rejected") or known is None:
        return row
    record, key, *earlier = known
    work = work_of(out_dir / record, out_dir / row.method)
    complete = work is not None and work["key"] == key
    if work is not None and work["key"] in earlier:
        return _outdated(row, out_dir, {f"{row.method}/{row.scan}": known})
    if complete and row.reason.endswith(OUTDATED):  # the run has reached it since
        return _judged(row._replace(state="done", reason=NO_REASON), out_dir, known)
    if row.state == "waiting":
        state = "done" if complete else "waiting" if going_on else "interrupted"
        return _judged(row._replace(state=state), out_dir, known)
    return row if complete else row._replace(state="missing")


def _keys(out_dir: Path) -> dict[str, list[str]]:
    """Record and key of each scan, by data set and path."""
    try:
        keys = json.loads((out_dir / lock.FOLDER / "plan.json").read_text())
    except (OSError, ValueError):
        return {}
    return keys if isinstance(keys, dict) else {}


def _read(path: Path) -> list[Row]:
    try:
        lines = list(csv.reader(io.StringIO(path.read_text("utf-8", "replace")), delimiter="\t"))
    except (OSError, ValueError):
        return []
    return [Row(*line) for line in lines[1:] if len(line) == len(STATUS_COLUMNS)]
