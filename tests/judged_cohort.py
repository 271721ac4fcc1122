"""Scans of a phantom as methods deliver them, with fields that are known: for the tests of the judge's records."""

from pathlib import Path

import numpy as np
import pytest
from conftest import reorient

from biascorr_pydra import bids
from biascorr_pydra.bids import CORRECTED, JUDGED, Job
from biascorr_pydra.cohort import publish
from biascorr_pydra.images import nifti

T1W = "sub-01/anat/sub-01_T1w.nii.gz"


def job_of(relative=T1W):
    *entities, suffix = relative.rsplit("/", 1)[1].split(".")[0].split("_")
    return Job(Path("/raw") / relative, relative, tuple(tuple(e.split("-", 1)) for e in entities), suffix)


class Delivery:
    """An output folder, and a phantom that methods deliver into it."""

    def __init__(self, out, scratch, phantom):
        self.out, self.scratch, self.phantom = out, scratch, phantom

    def put(self, label, field, *, scan=T1W, verdict="accepted", key="1", source="a", mask=True, codes="RAS", **odd):
        """Publish what a method delivers whose field this is; a field of 1 where the gate lets none through.

        ``odd``: ``rescale_to`` as N4's presets have it, and ``fallback_verdict`` of the gate.
        """
        field = np.broadcast_to(field if verdict == "accepted" else 1.0, self.phantom.bias.shape)
        shift = 100 if odd and verdict == "accepted" else 0
        images = {"corrected": self.phantom.acquired / field + shift, "bias": field}
        images |= {"mask": self.phantom.brain} if mask else {}
        files = {}
        for kind, data in images.items():
            files[kind] = self.scratch / f"{kind}.nii.gz"
            img = self.phantom.image(data, np.uint8 if kind == "mask" else np.float32)
            nifti.save(reorient(img, codes), files[kind])
        dataset = self.out / label
        if not dataset.is_dir():
            bids.prepare_dataset(dataset, self.out.parent / "raw", label, "test")
        applied = label if verdict == "accepted" else "none"
        job, gate = job_of(scan), {"verdict": verdict, "reasons": [], "applied": applied}
        gate["fallback_verdict"] = odd.get("fallback_verdict")
        names = ("method_version", "preset", "parameters", "weights_sha256", "device", "seed", "scaled_over")
        names += ("intensities", "mask_resampled", "field", "estimate", "software")
        correction = {**dict.fromkeys(names, "x"), "method": label, "in_sha256": source, "gate": gate, "warnings": []}
        correction["estimate"] = {"rescale_to": odd.get("rescale_to")}
        content = {"source": bids.bids_uri(job), "entities": dict(job.entities), "suffix": job.suffix, "gate": gate}
        records = {"correction": correction, "brain": {"Name": "given"}}
        return publish(job, CORRECTED, dataset, files, records, content, key=f"{label} {key}", run_id="run")

    def record(self, scan=T1W):
        """Where the judge's record of a scan goes."""
        return JUDGED.record_file(job_of(scan), self.out / bids.JUDGE)


@pytest.fixture
def delivery(tmp_path, phantom):
    return Delivery(tmp_path / "out", tmp_path, phantom)
