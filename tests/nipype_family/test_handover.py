"""What `pydra run workflows/correct_bids.py` writes is what sMRIPrep and fMRIPrep find with --derivatives."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.ants import N4BiasFieldCorrection
from niworkflows.utils.spaces import Reference, SpatialReferences
from smriprep.utils.bids import collect_derivatives
from smriprep.workflows.anatomical import init_anat_fit_wf

from biascorr_pydra.interfaces.nipype.swap import nodes_of

pytestmark = pytest.mark.nipype
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    """sub-03 of the example data set, corrected as a user does it."""
    out = tmp_path_factory.mktemp("handover") / "out"
    code = "from biascorr_pydra.interfaces.pydra.run import main; main()"
    command = ["run", ROOT / "workflows/correct_bids.py", "--bids-dir", ROOT / "bids_examples/phantom"]
    choices = ["--out-dir", out, "--participant-label", "03", "--segmentation", "kmeans", "--skull-strip", "template"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command + choices)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "deepem"


def test_smriprep_finds_our_derivatives(derivatives):
    collected = collect_derivatives(derivatives, "03", [], session_id="1")
    anat = derivatives / "sub-03/ses-1/anat"
    assert collected == {
        "t1w_preproc": str(anat / "sub-03_ses-1_desc-preproc_T1w.nii.gz"),
        "t1w_mask": str(anat / "sub-03_ses-1_desc-brain_mask.nii.gz"),
        "t1w_dseg": str(anat / "sub-03_ses-1_dseg.nii.gz"),
        "t1w_tpms": [str(anat / f"sub-03_ses-1_label-{tissue}_probseg.nii.gz") for tissue in ("GM", "WM", "CSF")],
        "t2w_preproc": str(anat / "sub-03_ses-1_desc-preproc_T2w.nii.gz"),
        "transforms": {},
    }


def test_they_are_on_one_grid_and_labelled_as_smriprep_labels(derivatives):
    collected = collect_derivatives(derivatives, "03", [], session_id="1")
    images = {key: nib.load(collected[key]) for key in ("t1w_preproc", "t1w_mask", "t1w_dseg")}
    for img in images.values():
        np.testing.assert_allclose(img.affine, images["t1w_preproc"].affine)
        assert img.shape == images["t1w_preproc"].shape
    most = np.argmax([nib.load(file).get_fdata() for file in collected["t1w_tpms"]], axis=0) + 1
    dseg = images["t1w_dseg"].get_fdata()
    assert np.mean(most[dseg > 0] == dseg[dseg > 0]) > 0.95  # sMRIPrep: 1 GM, 2 WM, 3 CSF


def test_smriprep_then_has_no_n4_left(derivatives, tmp_path):
    source = ROOT / "bids_examples/phantom/sub-03/ses-1/anat/sub-03_ses-1_T1w.nii.gz"

    def n4_nodes(precomputed):
        workflow = init_anat_fit_wf(
            bids_root=str(ROOT / "bids_examples/phantom"),
            output_dir=str(tmp_path),
            freesurfer=False,
            hires=False,
            longitudinal=False,
            msm_sulc=False,
            t1w=[str(source)],
            t2w=[],
            skull_strip_mode="force",
            skull_strip_template=Reference("OASIS30ANTs"),
            spaces=SpatialReferences(spaces=["MNI152NLin2009cAsym"], checkpoint=True),
            precomputed=precomputed,
            omp_nthreads=1,
        )
        return {name for name, node in nodes_of(workflow) if isinstance(node.interface, N4BiasFieldCorrection)}

    assert n4_nodes({})
    assert n4_nodes(collect_derivatives(derivatives, "03", [], session_id="1")) == set()
