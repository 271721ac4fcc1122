"""Tests that need the extra "fmriprep" (nipype, niworkflows, nireports, smriprep): run with `pytest -m nipype`."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

os.environ["NIPYPE_NO_ET"] = "1"  # Nipype's telemetry
# TemplateFlow unpacks its index (empty files) here when it is first imported; templates themselves are stood in for.
HOME = tempfile.TemporaryDirectory(prefix="templateflow-")
os.environ["TEMPLATEFLOW_HOME"] = HOME.name
os.environ["TEMPLATEFLOW_AUTOUPDATE"] = "0"


def pytest_ignore_collect(collection_path, config):
    # Asked for by name, or not even imported: these modules import what may not be installed.
    asked = config.option.markexpr or ""
    return True if "nipype" not in asked or "not nipype" in asked else None


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    """A template that a builder asks for is a placeholder: the graph is what is tested, and nothing is downloaded."""
    from templateflow import client

    def placeholder(config, filepath: Path) -> None:
        filepath.write_bytes(b"placeholder")

    monkeypatch.setattr(client, "_s3_get", placeholder)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Nipype writes crash files and some interfaces their outputs where one stands."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mask_file(phantom, tmp_path):
    from biascorr_pydra.images import nifti

    nifti.save(phantom.image(phantom.brain, np.uint8), tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


@pytest.fixture
def bids_t1w(phantom, tmp_path):
    """The phantom under a BIDS name, in a data set of its own."""
    from biascorr_pydra.images import nifti

    path = tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    (tmp_path / "bids/dataset_description.json").write_text('{"Name": "phantom", "BIDSVersion": "1.10.0"}')
    nifti.save(phantom.image(), path)
    return path
