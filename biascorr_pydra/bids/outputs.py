"""BIDS out: every file that a corrected scan gets, declared once: its kind, its name, who makes it, its sidecar.

What publishes a scan, what reads it again, and the workflow that hands files from step to step all follow these
declarations. :mod:`biascorr_pydra.bids.normalized` has those of normalized images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .jobs import TISSUES, Job

__all__ = ["CORRECTED", "NOT_CORRECTED", "Output", "Outputs", "Records", "bids_uri", "output_paths", "sidecar"]

RAW = "raw"
#: "applied" in the gate of a correction's record where no field was divided out; else a method is named there.
NOT_CORRECTED = "none"

#: The record of each step that was taken, by the step's name.
Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Output:
    """An image that a derivative data set has for a scan.

    Attributes
    ----------
    kind : what code calls it
    ending : what its name has after the scan's entities; ``{suffix}`` is the scan's (T1w ...), ``{space}`` is empty for
        T1w and ``_space-SUFFIX`` for the rest
    step : the step that makes it, and whose record its sidecar is made of
    field : the step's output that holds it
    about : the scan and the records of all steps -> content of the JSON sidecar
    standard : bool
        Whether BIDS knows a file of this name; the validator is told to pass over others.
    """

    kind: str
    ending: str
    step: str
    field: str
    about: Callable[[Job, Records], dict[str, Any]]
    standard: bool = True


@dataclass(frozen=True)
class Outputs:
    """All files of a scan in one kind of derivative data set.

    Attributes
    ----------
    images : each has a sidecar
    record : kind of the JSON file that is written last, and marks the others as complete
    record_ending : its name, as the ``ending`` of an :class:`Output`
    """

    images: tuple[Output, ...]
    record: str
    record_ending: str

    def paths(self, job: Job, dataset: str | Path) -> dict[str, Path]:
        """Where each file of a scan goes, by kind."""
        folder = Path(dataset) / Path(job.relative).parent
        space = "" if job.suffix == "T1w" else f"_space-{job.suffix}"
        endings = {image.kind: image.ending for image in self.images} | {self.record: self.record_ending}
        return {
            kind: folder / (job.stem + ending.format(suffix=job.suffix, space=space))
            for kind, ending in endings.items()
        }

    def record_file(self, job: Job, dataset: str | Path) -> Path:
        """Where the record of a scan goes."""
        return self.paths(job, dataset)[self.record]

    def sidecars(self, job: Job, records: Records) -> dict[str, dict[str, Any]]:
        """Content of the JSON beside each image, by kind, for those whose step was taken."""
        return {image.kind: image.about(job, records) for image in self.images if image.step in records}

    def made_by(self, *steps: str) -> tuple[Output, ...]:
        """The images that these steps make."""
        return tuple(image for image in self.images if image.step in steps)

    def ignored(self) -> list[str]:
        """What BIDS does not know, as patterns for .bidsignore."""
        suffixes = [image.ending.split("_")[-1].split(".")[0] for image in self.images if not image.standard]
        return [*(f"*_{suffix}.*" for suffix in dict.fromkeys(suffixes)), f"*_{self.record_ending.split('_')[-1]}"]


def sidecar(path: Path) -> Path:
    """The JSON file beside an image."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def bids_uri(job: Job, dataset: str = RAW) -> str:
    """The scan as a BIDS URI."""
    return f"bids:{dataset}:{job.relative}"


def sources(job: Job) -> dict[str, Any]:
    """The key Sources of a file made from a scan."""
    return {"Sources": [bids_uri(job)]}


def drawn_on(job: Job) -> dict[str, Any]:
    """Sources of a mask or segmentation, and what its space refers to: BIDS asks for it where the name has a space."""
    return sources(job) if job.suffix == "T1w" else {**sources(job), "SpatialReference": bids_uri(job)}


# --- sidecars of corrected images


def _corrected(job: Job, records: Records) -> dict[str, Any]:
    gate = records["correction"]["gate"]
    kept = f"Acquired image as it is: its bias field was {gate['verdict']}"
    divided = "Acquired image divided by the bias field"
    return {
        "Description": kept if gate["applied"] == NOT_CORRECTED else divided,
        **sources(job),
        "SkullStripped": False,
        **_method(job, records),
    }


def _bias(job: Job, records: Records) -> dict[str, Any]:
    return {
        "Description": "Bias field: acquired = corrected x field, mean 1 over the mask",
        "Units": "dimensionless",
        **sources(job),
        **_method(job, records),
    }


def _rejected(job: Job, records: Records) -> dict[str, Any]:
    return _bias(job, records) | {
        "Description": "Bias field that the gate rejected or found negligible, and that was not divided out",
        "FieldSummary": records["correction"].get("rejected_field"),
    }


def _method(job: Job, records: Records) -> dict[str, Any]:
    """How the field was found."""
    correction, brain = records["correction"], records.get("brain", {})
    return {
        "SourceSHA256": correction["in_sha256"],
        "Method": {
            "Name": correction["method"],
            "Version": correction["method_version"],
            "Preset": correction["preset"],
            "Parameters": correction["parameters"],
            "WeightsSHA256": correction["weights_sha256"],
            "Device": correction["device"],
            "Seed": correction["seed"],
        },
        "FieldScaledOver": correction["scaled_over"],
        "MaskMethod": brain.get("Name"),
        "MaskResampled": correction["mask_resampled"] or bool(brain.get("resampled")),
        "Intensities": correction["intensities"],
        "FieldSummary": correction["field"],
        "EstimateRecord": correction["estimate"],
        "Gate": correction["gate"],
        "Warnings": list(dict.fromkeys([*job.warnings, *correction["warnings"], *brain.get("warnings", [])])),
        "Software": correction["software"],
    }


def mask_sidecar(job: Job, records: Records) -> dict[str, Any]:
    """The JSON beside a brain mask."""
    return {"Type": "Brain", **drawn_on(job), "Method": dict(records["brain"])}


def _dseg(job: Job, records: Records) -> dict[str, Any]:
    about = {"Description": "Tissue segmentation", **drawn_on(job), "Manual": False}
    return {**about, "Method": dict(records["tissue"])}


def _probseg(job: Job, records: Records, *, tissue: str) -> dict[str, Any]:
    return {"Description": f"Probability of {tissue}", **drawn_on(job), "Method": dict(records["tissue"])}


#: A corrected scan's files.
CORRECTED = Outputs(
    images=(
        Output("corrected", "_desc-preproc_{suffix}.nii.gz", "correction", "out_file", _corrected),
        Output("bias", "_desc-{suffix}_biasfield.nii.gz", "correction", "bias_file", _bias, standard=False),
        Output(
            "rejected",
            "_desc-{suffix}rejected_biasfield.nii.gz",
            "correction",
            "rejected_file",
            _rejected,
            standard=False,
        ),
        Output("mask", "{space}_desc-brain_mask.nii.gz", "brain", "mask_file", mask_sidecar),
        Output("dseg", "{space}_dseg.nii.gz", "tissue", "dseg_file", _dseg),
        *(
            Output(
                tissue,
                f"{{space}}_label-{tissue}_probseg.nii.gz",
                "tissue",
                f"{tissue.lower()}_file",
                partial(_probseg, tissue=tissue),
            )
            for tissue in TISSUES
        ),
    ),
    record="metrics",
    record_ending="_desc-{suffix}_metrics.json",
)


def output_paths(job: Job, dataset: str | Path) -> dict[str, Path]:
    """Where each file of a corrected scan goes, by kind, inside one method's derivative data set."""
    return CORRECTED.paths(job, dataset)
