"""Indexing, names, given derivatives, and the root of a derivative data set, on small trees."""

import json
import shutil

import pytest
from tiny_cohort import DESCRIPTION, relatives

from biascorr_pydra import bids
from biascorr_pydra.errors import BIDSError, OutputExistsError
from biascorr_pydra.images import files


def test_every_anatomical_image_is_indexed_in_order(tiny):
    jobs = bids.index(tiny)
    assert relatives(jobs) == [
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-02/anat/sub-02_acq-fast_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_acq-fast_run-2_T1w.nii.gz",
    ]
    assert jobs[3].entities == (("sub", "02"), ("acq", "fast"), ("run", "1"))
    assert jobs[1].suffix == "T2w"


def test_selection_takes_labels_with_and_without_prefix(tiny):
    assert len(bids.index(tiny, participants=["sub-01"])) == 3
    assert relatives(bids.index(tiny, participants=["01"], sessions=["ses-b"]))[0].endswith("ses-b_T1w.nii.gz")
    assert [job.suffix for job in bids.index(tiny, suffixes=["T2w"])] == ["T2w"]


def test_a_scan_that_the_scanner_normalized_carries_a_warning(tiny):
    jobs = bids.index(tiny)
    assert [bool(job.warnings) for job in jobs] == [False, False, False, False, True]
    assert "NORM" in jobs[4].warnings[0]


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"participants": ["07"]}, r"no such participant.*07.*01, 02"),
        ({"sessions": ["z"]}, r"no such session.*a, b"),
        ({"suffixes": ["FLAIR"]}, r"no anatomical image matches.*FLAIR.*T1w"),
    ],
)
def test_selections_that_match_nothing(tiny, selection, words):
    with pytest.raises(BIDSError, match=words):
        bids.index(tiny, **selection)


def test_not_a_bids_data_set(tiny, tmp_path):
    with pytest.raises(BIDSError, match=r"nowhere: no such folder"):
        bids.index(tmp_path / "nowhere")
    (tiny / "dataset_description.json").write_text("{")
    with pytest.raises(BIDSError, match="not valid JSON"):
        bids.index(tiny)
    (tiny / "dataset_description.json").unlink()
    with pytest.raises(BIDSError, match=r"has a dataset_description.json.*Point to the root"):
        bids.index(tiny)


def test_given_files_are_those_of_the_scans_own_grid(tiny, tmp_path):
    derivatives = tmp_path / "derivatives"
    folder = derivatives / "sub-01/ses-a/anat"
    folder.mkdir(parents=True)
    description = {**DESCRIPTION, "DatasetType": "derivative", "GeneratedBy": [{"Name": "hand"}]}
    (derivatives / "dataset_description.json").write_text(json.dumps(description))
    for ending in (
        "desc-brain_mask",
        "space-T2w_desc-brain_mask",
        "space-MNI152NLin2009cAsym_desc-brain_mask",
        "desc-lesion_mask",
        "dseg",
        "desc-aseg_dseg",
        "label-GM_probseg",
        "space-T2w_label-WM_probseg",
    ):
        (folder / f"sub-01_ses-a_{ending}.nii.gz").touch()
    t1w, t2w, other = bids.index(tiny, participants=["01"], derivatives=derivatives)
    named = lambda job: {kind: path.name for kind, path in job.given.items()}  # noqa: E731
    assert named(t1w) == {
        "mask": "sub-01_ses-a_desc-brain_mask.nii.gz",
        "dseg": "sub-01_ses-a_dseg.nii.gz",
        "GM": "sub-01_ses-a_label-GM_probseg.nii.gz",
    }
    assert named(t2w) == {
        "mask": "sub-01_ses-a_space-T2w_desc-brain_mask.nii.gz",
        "WM": "sub-01_ses-a_space-T2w_label-WM_probseg.nii.gz",
    }
    assert other.given == {}


def test_a_folder_that_is_not_ours_is_refused(tiny, tmp_path):
    (tmp_path / "out/n4").mkdir(parents=True)
    (tmp_path / "out/n4/thesis.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match="not empty"):
        bids.prepare_dataset(tmp_path / "out/n4", tiny, "n4", "test")
    assert [p.name for p in (tmp_path / "out/n4").iterdir()] == ["thesis.txt"]


def test_the_derivative_data_set_says_where_it_comes_from(published, tiny):
    made = json.loads((published.settings.out_dir / "n4/dataset_description.json").read_text())
    assert made["DatasetType"] == "derivative" and made["GeneratedBy"][0]["Name"] == "biascorr_pydra"
    link = (published.settings.out_dir / "n4" / made["DatasetLinks"]["raw"]).resolve()
    assert link == tiny.resolve()
    paths = bids.output_paths(published.jobs[0], published.settings.out_dir / "n4")
    sources = json.loads(bids.sidecar(paths["corrected"]).read_text())
    assert sources["Sources"] == ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"]
    assert sources["SourceSHA256"] == files.sha256(tiny / published.jobs[0].relative)
    shutil.rmtree(published.settings.out_dir)
