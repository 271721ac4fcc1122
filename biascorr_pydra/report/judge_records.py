"""What the judge wrote into ``OUT/judge``, joined to the results of the methods.

The judge scores all images of a scan on tissue that no compared method made. Its numbers are a result's "before" (the
acquired image) and "after" (the method's); those on the tissue of a method's own segmentation are its "own_before" and
"own_after". No image is opened here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biascorr_pydra.judge import ACQUIRED, JUDGE_VERSION

from .judged import JudgedScan, mapping_in
from .results import Problem, Result, read_json, source_of

__all__ = ["AGAIN", "JUDGE", "NEXT_STEP", "join", "joined"]

JUDGE = "judge"  # the data set's folder
#: How scans that nobody judged are judged.
NEXT_STEP = (
    "`biascorr report OUT` judges what is not judged, and says what it cannot; so does the command of the correction, "
    "run again on the same folders."
)
#: What stands in a metrics file under "before" and "after", and what it is called in a result.
PARTS = {"before": "own_before", "after": "own_after"}
EARLIER = "the records are of an earlier version, which had no judge"
ABSENT = "the judge has no record of this scan"
OUTDATED = "the judge's record is of other results than those in the folder"
OTHER_JUDGE = "the judge's record is of another version of the judge"
#: Reasons that go away if the same command is run again.
AGAIN = (EARLIER, ABSENT, OUTDATED, OTHER_JUDGE)


def join(root: Path, results: Mapping[tuple[str, str], Result], problems: list[Problem]) -> None:
    """Give the results of one output folder the judge's numbers, and its ``judged``.

    Parameters
    ----------
    root : the output folder
    results : by scan and method; their records are changed
    problems : what cannot be read, or does not belong to the results, is added
    """
    by_scan: dict[str, list[Result]] = {}
    for result in results.values():
        by_scan.setdefault(result.scan, []).append(result)
    records = _read(root, problems)
    earlier = not (root / JUDGE).is_dir()
    for scan, of_scan in by_scan.items():
        judged = _judged(root, records.get(scan), of_scan, EARLIER if earlier else ABSENT)
        if judged.reason in (OUTDATED, OTHER_JUDGE):
            problems.append(Problem(f"{JUDGE}: {scan}", f"{judged.reason}: it is not used. {NEXT_STEP}"))
        for result in of_scan:
            result.judged = judged
            if result.record:
                result.record = joined(result, judged)


def _read(root: Path, problems: list[Problem]) -> dict[str, tuple[Path, dict[str, Any]]]:
    records = {}
    for path in sorted((root / JUDGE).glob("sub-*/**/*_judge.json")):
        name = path.relative_to(root).as_posix()
        record = read_json(path, name, problems)
        if record is not None and isinstance(record.get("source"), str):
            records[source_of(record["source"])] = path, record
        elif record is not None:
            problems.append(Problem(name, "does not say which source it belongs to"))
    return records


def _judged(root: Path, known: tuple[Path, dict[str, Any]] | None, results: list[Result], absent: str) -> JudgedScan:
    if known is None:
        return JudgedScan(absent)
    path, record = known
    if record.get("judge_version") != JUDGE_VERSION:
        return JudgedScan(OTHER_JUDGE)
    if not all(_holds(record, result) for result in results if result.record):
        return JudgedScan(OUTDATED)
    reason = record.get("reason")
    return JudgedScan(None if reason is None else str(reason), record, _dseg(path, str(record.get("suffix"))))


def _dseg(path: Path, suffix: str) -> Path | None:
    """The judge's tissue beside its record; only that of a T1w has no space in its name."""
    stem = path.name.removesuffix(f"_desc-{suffix}_judge.json")
    spaces = (f"_space-{suffix}", "") if suffix == "T1w" else (f"_space-{suffix}",)
    files = (path.with_name(f"{stem}{space}_desc-judge_dseg.nii.gz") for space in spaces)
    return next((file for file in files if file.is_file()), None)


def _holds(record: Mapping[str, Any], result: Result) -> bool:
    """Whether a record of the judge is of this result as it is now."""
    delivered, key = mapping_in(record, "delivered"), result.part("work").get("key")
    return result.method in delivered and (key is None or delivered[result.method] == key)


def joined(result: Result, judged: JudgedScan) -> dict[str, Any]:
    """The result's record with the judge's numbers, and its own ones under their names.

    A metrics file of an earlier version has numbers on one segmentation for all methods under "before" and "after".
    """
    record = dict(result.record)
    for part, own in PARTS.items():
        values = record.pop(part, None)
        record.setdefault(own, values if isinstance(values, Mapping) else {})
    undefined = {}
    for name, reason in result.part("undefined").items():
        part, dot, key = str(name).partition(".")
        undefined[f"{PARTS.get(part, part)}{dot}{key}"] = reason
    for part, name in (("before", ACQUIRED), ("after", result.method)):
        numbers = judged.numbers(name)
        record[part] = {key: value for key, value in numbers.items() if key != "undefined"}
        undefined |= {f"{part}.{key}": reason for key, reason in mapping_in(numbers, "undefined").items()}
    return record | {"undefined": undefined}
