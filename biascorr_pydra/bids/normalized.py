"""Files of normalized images, which are not corrected ones: a derivative data set of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

from .jobs import TISSUES, Job
from .outputs import Output, Outputs, Records, drawn_on, mask_sidecar, sources

__all__ = ["NORMALIZED", "NORMALIZED_OUTPUTS", "NORMALIZED_README"]

#: Folder name of the data set beside the methods' data sets.
NORMALIZED = "deepnormalize-normalized"
NORMALIZED_README = (
    "Images normalized by DeepNormalize, and the tissue segmentation of its segmenter.\n"
    "Intensities run from 0 to 1 and are those of no scanner: the contrast between tissues is changed by design.\n"
    "These are no images corrected for the bias field; `biascorr correct --method deepnormalize` makes such.\n"
)


def _method(records: Records) -> dict[str, Any]:
    record = records["normalization"]
    return {"SourceSHA256": record["in_sha256"][0], "Method": dict(record["method"])}


def _normalized(job: Job, records: Records) -> dict[str, Any]:
    record = records["normalization"]
    return {
        "Description": "Image normalized by DeepNormalize; intensities from 0 to 1, contrast changed by design",
        "Units": "arbitrary",
        **sources(job),
        "SkullStripped": True,
        **_method(records),
        "MaskMethod": records.get("brain", {}).get("Name"),
        "Warnings": list(record["warnings"]),
        "Software": dict(record["software"]),
    }


def _dseg(job: Job, records: Records) -> dict[str, Any]:
    return {"Description": "Tissue segmentation", **drawn_on(job), "Manual": False, **_method(records)}


def _probseg(job: Job, records: Records, *, tissue: str) -> dict[str, Any]:
    return {"Description": f"Probability of {tissue}", **drawn_on(job), **_method(records)}


#: A normalized scan's files; the mask, where one was made.
NORMALIZED_OUTPUTS = Outputs(
    images=(
        Output("normalized", "_desc-normalized_{suffix}.nii.gz", "normalization", "normalized_file", _normalized),
        Output("mask", "{space}_desc-brain_mask.nii.gz", "brain", "mask_file", mask_sidecar),
        Output("dseg", "{space}_dseg.nii.gz", "normalization", "dseg_file", _dseg),
        *(
            Output(
                tissue,
                f"{{space}}_label-{tissue}_probseg.nii.gz",
                "normalization",
                f"{tissue.lower()}_file",
                partial(_probseg, tissue=tissue),
            )
            for tissue in TISSUES
        ),
    ),
    record="record",
    record_ending="_desc-{suffix}_normalization.json",
)
