"""Estimates made together, ahead of the scans' own corrections: the same fields, and no more than a help."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import make_phantom

from biascorr_pydra.correction import decide, estimate
from biascorr_pydra.correction.correct import correct_file, correct_image, estimate_together
from biascorr_pydra.images import nifti
from biascorr_pydra.methods.n4.corrector import N4
from biascorr_pydra.methods.ubc.corrector import UBC


@pytest.fixture
def scans(tmp_path):
    files = []
    for seed in range(3):
        phantom = make_phantom((24, 28, 22), 8.0, seed=seed)
        files.append(tmp_path / f"sub-{seed}_T1w.nii.gz")
        nifti.save(phantom.image(), files[-1])
    return files


def requests(files, method):
    same = {"method": method, "preset": None, "options": None, "device": "cpu", "seed": 0}
    return [{"in_file": file, **same} for file in files]


def corrected(file, out, method):
    correct_file(file, out, method=method, overwrite=True)
    return nifti.load(out).get_fdata()


@pytest.mark.parametrize(("method", "cls"), [("n4", N4), ("ubc", UBC)])
def test_a_field_estimated_together_is_the_one_estimated_alone(scans, tmp_path, monkeypatch, method, cls):
    alone = [corrected(file, tmp_path / "a.nii.gz", method) for file in scans]
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"x")
    estimate_together(requests([*scans, broken], method))
    monkeypatch.setattr(cls, "estimate", lambda *_, **__: pytest.fail("estimated again"))
    for file, expected in zip(scans, alone, strict=True):
        # a network's sums differ in their last bits with the size of the batch
        np.testing.assert_allclose(corrected(file, tmp_path / "b.nii.gz", method), expected, rtol=2e-5, atol=1e-3)
    assert not estimate._ahead


def test_another_image_or_option_is_estimated_itself(scans, tmp_path):
    estimate_together(requests(scans[:2], "n4"))
    kept = len(estimate._ahead)
    correct_file(scans[2], tmp_path / "c.nii.gz", method="n4")
    correct_file(scans[0], tmp_path / "d.nii.gz", method="n4", options={"bins": 100})
    assert kept == 2 and len(estimate._ahead) == 2
    estimate._ahead.clear()


@pytest.mark.parametrize(("fit", "sizes"), [(8, [8]), (3, [8, 4, 2, 2, 2, 2]), (0, [8, 4, 2])])
def test_memory_decides_how_many_at_once(fit, sizes):
    tried = []

    class Hungry(N4):
        def estimate_batch(self, scans, *, device="cpu", seed=0):
            tried.append(len(scans))
            if len(scans) > fit:
                raise torch.OutOfMemoryError
            return list(range(1, len(scans) + 1))

    def scan(number):
        one = np.full((2, 2, 2), number, np.float32)
        return estimate.Scan(one, one > -1, None, (1.0, 1.0, 1.0))

    size = estimate.estimate_ahead(Hungry(), [scan(k) for k in range(8)], device="cpu", seed=0)
    assert tried == sizes and size == {8: 8, 3: 2, 0: 1}[fit]
    assert len(estimate._ahead) == (8 if fit else 0)
    estimate._ahead.clear()


@pytest.mark.parametrize("masked", [False, True])
def test_a_field_is_judged_where_its_method_found_the_brain(monkeypatch, masked):
    phantom = make_phantom((24, 28, 22), 8.0)
    found = np.zeros(phantom.image().shape, bool)
    found[6:18, 7:20, 6:16] = True
    estimate, judge, seen = N4.estimate, decide.judge, {}

    def spied(data, bias, region, size, **how):
        seen.update(region=region, whole_head=how["whole_head"])
        return judge(data, bias, region, size, **how)

    monkeypatch.setattr(N4, "estimate", lambda *args, **how: replace(estimate(*args, **how), brain=found))
    monkeypatch.setattr(decide, "judge", spied)
    mask = nib.Nifti1Image(np.ones(found.shape, np.uint8), phantom.image().affine) if masked else None
    correct_image(phantom.image(), method="n4", mask=mask)
    # A mask that was given counts for more.
    assert not seen["whole_head"] and seen["region"].all() == masked
    assert masked or (seen["region"].any() and not (seen["region"] & ~found).any())
