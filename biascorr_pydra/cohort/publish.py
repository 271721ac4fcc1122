"""Put a finished scan's files under their BIDS names, the record last: it marks the rest as complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biascorr_pydra import bids
from biascorr_pydra.bids import Job, Outputs, Records
from biascorr_pydra.errors import OutputExistsError
from biascorr_pydra.images.files import remove, write_atomic, write_json

__all__ = ["metrics_record", "publish"]


def publish(
    job: Job,
    outputs: Outputs,
    dataset: str | Path,
    files: Mapping[str, Path],
    records: Records,
    content: Mapping[str, Any],
    *,
    key: str,
    run_id: str | None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Copy a scan's results into a derivative data set, with sidecars.

    Parameters
    ----------
    job : Job
    outputs : what a scan gets there, and under which names
    dataset : root of the derivative data set, prepared by :func:`biascorr_pydra.bids.prepare_dataset`
    files : the images that were made, by kind
    records : of the steps that were taken, for the sidecars
    content : what the scan's record says; how the work is called and which files belong to it is added
    key : what this work is called, see :mod:`biascorr_pydra.cohort.plan`
    run_id : the run that did it
    settings : what the key is a hash of, so that a later run with other settings can say which ones changed
    overwrite : bool
        Also replace files that this package did not write.

    Returns
    -------
    Path of the record.

    Raises
    ------
    OutputExistsError
        A file of the same name is not this package's.
    OutputError
        The data set cannot be written to.
    """
    dataset = Path(dataset)
    paths = outputs.paths(job, dataset)
    record = paths.pop(outputs.record)
    if not overwrite:
        for kind in files:
            _refuse_foreign(paths[kind])
    bids.make_folder(record.parent)
    remove(record)  # until the new one is there, the scan counts as not done
    _remove_stale(paths, files)
    sidecars = outputs.sidecars(job, records)
    sizes = {}
    for kind, file in files.items():
        write_json(bids.sidecar(paths[kind]), sidecars[kind])
        _copy(file, paths[kind])
        sizes[paths[kind].relative_to(dataset).as_posix()] = paths[kind].stat().st_size
    work = {"key": key, "run_id": run_id, "files": sizes, **({"settings": settings} if settings else {})}
    write_json(record, {**content, "work": work})
    return record


def _is_ours(path: Path) -> bool:
    try:
        return "Method" in json.loads(bids.sidecar(path).read_text())
    except (OSError, ValueError):
        return False


def _remove_stale(paths: Mapping[str, Path], files: Mapping[str, Path]) -> None:
    """Remove what an earlier run with other choices left, such as a mask where there is none now."""
    for kind, path in paths.items():
        if kind not in files and path.exists() and _is_ours(path):
            remove(path)
            remove(bids.sidecar(path))


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not _is_ours(path):
        raise OutputExistsError(
            "the output exists and was not written by biascorr_pydra",
            file=path,
            next_step="Move it away, choose another --out-dir, or add --overwrite.",
        )


def _copy(source: Path, target: Path) -> None:
    # A copy, not a hard link: editing a published file must not change the cache it came from.
    with open(source, "rb") as stream:
        write_atomic(target, lambda out: shutil.copyfileobj(stream, out, 1 << 20))


def metrics_record(job: Job, records: Records) -> dict[str, Any]:
    """The record of a corrected scan: its metrics, and how they came about."""
    correction, brain, tissue = records["correction"], records.get("brain"), records.get("tissue")
    runtime = {"correct": round(sum(correction["runtime_s"].values()), 3)}
    runtime |= {"skull_strip": brain["runtime_s"]} if brain else {}
    runtime |= {"segmentation": tissue["runtime_s"]} if tissue else {}
    warnings = [*job.warnings, *correction["warnings"]]
    for record in (brain, tissue):
        warnings += (record or {}).get("warnings", [])
    return {
        "source": bids.bids_uri(job),
        "subject": job.entity("sub"),
        "session": job.entity("ses"),
        "entities": dict(job.entities),
        "suffix": job.suffix,
        "method": correction["method"],
        "method_version": correction["method_version"],
        "preset": correction["preset"],
        "gate": correction["gate"],
        **records["metrics"],
        "segmentation": {"method": tissue["Name"], "image": tissue["Image"]} if tissue else None,
        "skull_strip": brain["Name"] if brain else None,
        "runtime_s": runtime,
        "warnings": list(dict.fromkeys(warnings)),
    }
