"""Put a corrected scan's files under their BIDS names, the metrics file last: it marks the rest as complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from biascorr_pydra import bids
from biascorr_pydra.bids import Job
from biascorr_pydra.errors import OutputExistsError
from biascorr_pydra.images.files import write_atomic, write_json

__all__ = ["publish"]


def publish(
    job: Job,
    dataset: str | Path,
    files: Mapping[str, Path],
    records: Mapping[str, Mapping | None],
    *,
    key: str,
    run_id: str,
    overwrite: bool = False,
) -> Path:
    """Copy a scan's results into a derivative data set, with sidecars.

    Parameters
    ----------
    job : Job
    dataset : root of the method's derivative data set, prepared by :func:`biascorr_pydra.bids.prepare_dataset`
    files : image files by kind, as :func:`biascorr_pydra.bids.output_paths` names the kinds
    records : "correction", "brain", "tissue" and "metrics"
    key : what this work is called, see :mod:`biascorr_pydra.cohort.plan`
    run_id : the run that did it
    overwrite : bool
        Also replace files that this package did not write.

    Returns
    -------
    Path of the metrics file.

    Raises
    ------
    OutputExistsError
        A file of the same name is not this package's.
    """
    dataset = Path(dataset)
    paths = bids.output_paths(job, dataset)
    if not overwrite:
        for kind in files:
            _refuse_foreign(paths[kind])
    paths["metrics"].parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(paths, files)
    # Until the new metrics file is there, the scan counts as not done.
    paths["metrics"].unlink(missing_ok=True)
    sidecars = bids.sidecars(job, records["correction"], records.get("brain"), records.get("tissue"))
    sizes = {}
    for kind, file in files.items():
        write_json(bids.sidecar(paths[kind]), sidecars[kind])
        _copy(file, paths[kind])
        sizes[paths[kind].relative_to(dataset).as_posix()] = paths[kind].stat().st_size
    write_json(paths["metrics"], _metrics(job, records) | {"work": {"key": key, "run_id": run_id, "files": sizes}})
    return paths["metrics"]


def _ours(path: Path) -> bool:
    try:
        return "Method" in json.loads(bids.sidecar(path).read_text())
    except (OSError, ValueError):
        return False


def _remove_stale(paths: Mapping[str, Path], files: Mapping[str, Path]) -> None:
    """Remove what an earlier run with other choices left, such as a mask where there is none now."""
    for kind, path in paths.items():
        if kind not in files and kind != "metrics" and path.exists() and _ours(path):
            path.unlink()
            bids.sidecar(path).unlink()


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not _ours(path):
        raise OutputExistsError(
            "the output exists and was not written by biascorr_pydra",
            file=path,
            next_step="Move it away, choose another --out-dir, or add --overwrite.",
        )


def _copy(source: Path, target: Path) -> None:
    # A copy, not a hard link: editing a published file must not change the cache it came from.
    with open(source, "rb") as stream:
        write_atomic(target, lambda out: shutil.copyfileobj(stream, out, 1 << 20))


def _metrics(job: Job, records: Mapping[str, Mapping | None]) -> dict:
    correction, brain, tissue = records["correction"], records.get("brain"), records.get("tissue")
    runtime = {"correct": round(sum(correction["runtime_s"].values()), 3)}
    runtime |= {"skull_strip": brain["runtime_s"]} if brain else {}
    runtime |= {"segmentation": tissue["runtime_s"]} if tissue else {}
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
        "warnings": list(
            dict.fromkeys([*job.warnings, *correction["warnings"], *_warnings(brain), *_warnings(tissue)])
        ),
    }


def _warnings(record: Mapping | None) -> list[str]:
    return list((record or {}).get("warnings", []))
