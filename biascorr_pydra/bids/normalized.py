"""Names and sidecars of normalized images, which are not corrected ones: a derivative data set of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .jobs import TISSUES, Job
from .outputs import bids_uri, output_paths

__all__ = ["NORMALIZED", "NORMALIZED_README", "normalized_paths", "normalized_sidecars"]

#: Folder name of the data set beside the methods' data sets.
NORMALIZED = "deepnormalize-normalized"
NORMALIZED_README = (
    "Images normalized by DeepNormalize, and the tissue segmentation of its segmenter.\n"
    "Intensities run from 0 to 1 and are those of no scanner: the contrast between tissues is changed by design.\n"
    "These are no images corrected for the bias field; `biascorr correct --method deepnormalize` makes such.\n"
)


def normalized_paths(job: Job, dataset: str | Path) -> dict[str, Path]:
    """Where each output of a scan goes, by kind, inside the derivative data set of normalized images."""
    names = output_paths(job, dataset)
    folder = names["dseg"].parent
    return {
        "normalized": folder / f"{job.stem}_desc-normalized_{job.suffix}.nii.gz",
        **{kind: names[kind] for kind in ("mask", "dseg", *TISSUES)},
        "record": folder / f"{job.stem}_desc-{job.suffix}_normalization.json",
    }


def normalized_sidecars(job: Job, record: Mapping, brain: Mapping | None) -> dict[str, dict]:
    """JSON sidecar of each image output, by kind, from the records of the steps that made them."""
    sources = {"Sources": [bids_uri(job)]}
    place = sources if job.suffix == "T1w" else {**sources, "SpatialReference": bids_uri(job)}
    method = {"SourceSHA256": record["in_sha256"][0], "Method": dict(record["method"])}
    about = {
        "normalized": {
            "Description": "Image normalized by DeepNormalize; intensities from 0 to 1, contrast changed by design",
            "Units": "arbitrary",
            **sources,
            "SkullStripped": True,
            **method,
            "MaskMethod": brain["Name"] if brain else None,
            "Warnings": list(record["warnings"]),
            "Software": dict(record["software"]),
        },
        "dseg": {"Description": "Tissue segmentation", **place, "Manual": False, **method},
        **{name: {"Description": f"Probability of {name}", **place, **method} for name in TISSUES},
    }
    if brain:
        about["mask"] = {"Type": "Brain", **place, "Method": dict(brain)}
    return about
