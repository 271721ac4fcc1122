"""Files of a scan: their names, their sidecars, and what it takes to add one."""

import json
from dataclasses import replace
from pathlib import Path

from tiny_cohort import put

from biascorr_pydra import bids
from biascorr_pydra.bids import CORRECTED, NORMALIZED_OUTPUTS, Job, Output


def test_output_names():
    t1w = Job(
        Path("/d/x"),
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz",
        (("sub", "01"), ("ses", "a"), ("run", "2")),
        "T1w",
    )
    names = {kind: path.as_posix() for kind, path in bids.output_paths(t1w, "out/n4").items()}
    stem = "out/n4/sub-01/ses-a/anat/sub-01_ses-a_run-2"
    assert names == {
        "corrected": f"{stem}_desc-preproc_T1w.nii.gz",
        "bias": f"{stem}_desc-T1w_biasfield.nii.gz",
        "rejected": f"{stem}_desc-T1wrejected_biasfield.nii.gz",
        "mask": f"{stem}_desc-brain_mask.nii.gz",
        "dseg": f"{stem}_dseg.nii.gz",
        "CSF": f"{stem}_label-CSF_probseg.nii.gz",
        "GM": f"{stem}_label-GM_probseg.nii.gz",
        "WM": f"{stem}_label-WM_probseg.nii.gz",
        "metrics": f"{stem}_desc-T1w_metrics.json",
    }
    t2w = Job(t1w.source, t1w.relative.replace("T1w", "T2w"), t1w.entities, "T2w")
    both = set(bids.output_paths(t1w, "o").values()) & set(bids.output_paths(t2w, "o").values())
    assert not both
    assert bids.output_paths(t2w, "o")["mask"].name == "sub-01_ses-a_run-2_space-T2w_desc-brain_mask.nii.gz"
    assert bids.sidecar(Path("a/b_T1w.nii.gz")) == Path("a/b_T1w.json")
    assert Job.from_dict(json.loads(json.dumps(t2w.as_dict()))) == t2w


T2W = Job(Path("/d/x"), "sub-01/anat/sub-01_T2w.nii.gz", (("sub", "01"),), "T2w")
SOURCE = "bids:raw:sub-01/anat/sub-01_T2w.nii.gz"


def test_names_of_normalized_images():
    names = {kind: path.as_posix() for kind, path in NORMALIZED_OUTPUTS.paths(T2W, "out").items()}
    assert names == {
        "normalized": "out/sub-01/anat/sub-01_desc-normalized_T2w.nii.gz",
        "mask": "out/sub-01/anat/sub-01_space-T2w_desc-brain_mask.nii.gz",
        "dseg": "out/sub-01/anat/sub-01_space-T2w_dseg.nii.gz",
        **{tissue: f"out/sub-01/anat/sub-01_space-T2w_label-{tissue}_probseg.nii.gz" for tissue in ("CSF", "GM", "WM")},
        "record": "out/sub-01/anat/sub-01_desc-T2w_normalization.json",
    }


def test_sidecars_of_what_was_made_and_of_nothing_else():
    records = {"brain": {"Name": "template"}, "tissue": {"Name": "kmeans"}}
    sidecars = CORRECTED.sidecars(T2W, records)
    assert set(sidecars) == {"mask", "dseg", "CSF", "GM", "WM"}
    place = {"Sources": [SOURCE], "SpatialReference": SOURCE}
    assert sidecars["mask"] == {"Type": "Brain", **place, "Method": {"Name": "template"}}
    assert sidecars["WM"] == {"Description": "Probability of WM", **place, "Method": {"Name": "kmeans"}}
    on_t1w = replace(T2W, suffix="T1w")
    assert "SpatialReference" not in CORRECTED.sidecars(on_t1w, records)["dseg"]


def test_what_bids_does_not_know_is_ignored_by_the_validator(tiny, tmp_path):
    bids.prepare_dataset(tmp_path / "out/n4", tiny, "n4", "test")
    ignored = (tmp_path / "out/n4/.bidsignore").read_text().splitlines()
    assert ignored == ["*_biasfield.*", "*_metrics.json", "*_normalization.json", "*_judge.json"]


def test_an_image_is_added_by_declaring_it(published, phantom_file):
    spread = Output(
        "uncertainty",
        "_desc-{suffix}_uncertainty.nii.gz",
        "correction",
        "uncertainty_file",
        lambda job, records: {"Method": records["correction"]["method"], "Suffix": job.suffix},
        standard=False,
    )
    outputs = replace(CORRECTED, images=(*CORRECTED.images, spread))
    job, dataset = published.jobs[0], published.out_dir / "n4"
    record = put(job, published, phantom_file, ("corrected", "bias", "uncertainty"), outputs=outputs)
    path = outputs.paths(job, dataset)["uncertainty"]
    assert path.name == "sub-01_ses-a_desc-T1w_uncertainty.nii.gz"
    assert json.loads(bids.sidecar(path).read_text()) == {"Method": "n4", "Suffix": "T1w"}
    assert path.relative_to(dataset).as_posix() in json.loads(record.read_text())["work"]["files"]
    assert spread in outputs.made_by("correction") and spread not in outputs.made_by("brain", "tissue")
    assert "*_uncertainty.*" in outputs.ignored()
    put(job, published, phantom_file, outputs=outputs)  # without it, as an earlier choice was with it
    assert not path.exists() and not bids.sidecar(path).exists()
