"""Estimates made together, ahead of the scans' own corrections: the same fields, and no more than a help."""

from dataclasses import replace
from typing import ClassVar

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import make_phantom

from biascorr_pydra.correction import decide
from biascorr_pydra.correction.batch import estimate_together
from biascorr_pydra.correction.cache import EstimateCache
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.correction.estimate import estimate_ahead
from biascorr_pydra.images import nifti
from biascorr_pydra.methods.corrector import Estimate, Scan
from biascorr_pydra.methods.n4.corrector import N4
from biascorr_pydra.methods.ubc.corrector import UBC
from biascorr_pydra.single import correct_file


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
    with estimate_together(requests([*scans, broken], method)) as cache:
        monkeypatch.setattr(cls, "estimate", lambda *_, **__: pytest.fail("estimated again"))
        for file, expected in zip(scans, alone, strict=True):
            # a network's sums differ in their last bits with the size of the batch
            np.testing.assert_allclose(corrected(file, tmp_path / "b.nii.gz", method), expected, rtol=2e-5, atol=1e-3)
        assert len(cache) == 0 and cache.n_bytes == 0


def test_another_image_or_option_is_estimated_itself(scans, tmp_path):
    with estimate_together(requests(scans[:2], "n4")) as cache:
        kept = len(cache)
        correct_file(scans[2], tmp_path / "c.nii.gz", method="n4")
        correct_file(scans[0], tmp_path / "d.nii.gz", method="n4", options={"bins": 100})
        assert kept == 2 and len(cache) == 2


def test_fields_are_found_in_their_own_batch_only(scans, tmp_path, monkeypatch):
    batch = estimate_together(requests(scans[:2], "n4"))
    with batch:
        assert EstimateCache.current() is batch
        with EstimateCache() as inner:
            assert EstimateCache.current() is inner
    assert EstimateCache.current() is None and len(batch) == 0, "what nobody asked for is dropped with the batch"


class Hungry(N4):
    """Runs out of memory with more than ``fit`` scans at once; notes named many were tried."""

    fit = 8
    tried: ClassVar[list[int]] = []

    def estimate_batch(self, scans, *, device="cpu", seed=0):
        self.tried.append(len(scans))
        if len(scans) > self.fit:
            raise torch.OutOfMemoryError
        return [Estimate(np.zeros((2, 2, 2), np.float32)) for _ in scans]


def numbered_scan(number):
    array = np.full((2, 2, 2), number, np.float32)
    return Scan(array, array > -1, None, (1.0, 1.0, 1.0))


@pytest.fixture
def tried(monkeypatch):
    sizes = []
    monkeypatch.setattr(Hungry, "tried", sizes)
    return sizes


@pytest.mark.parametrize(("fit", "sizes"), [(8, [8]), (3, [8, 4, 2, 2, 2, 2]), (0, [8, 4, 2])])
def test_memory_decides_how_many_at_once(fit, sizes, tried, monkeypatch):
    monkeypatch.setattr(Hungry, "fit", fit)
    cache = EstimateCache()
    size = estimate_ahead(Hungry(), [numbered_scan(k) for k in range(8)], cache, device="cpu", seed=0)
    assert tried == sizes and size == {8: 8, 3: 2, 0: 1}[fit]
    assert len(cache) == (8 if fit else 0)


def test_the_cache_is_never_fuller_than_it_may_be(tried, monkeypatch):
    """Also while it is filled: scans without room are not estimated ahead, let alone kept and dropped later."""
    most_seen = []
    put = EstimateCache.put
    monkeypatch.setattr(EstimateCache, "put", lambda self, *args: (put(self, *args), most_seen.append(len(self)))[0])
    cache = EstimateCache(most=5)
    estimate_ahead(Hungry(), [numbered_scan(k) for k in range(8)], cache, device="cpu", seed=0)
    assert tried == [5] and max(most_seen) == len(cache) == 5 and cache.room == 0
    estimate_ahead(Hungry(), [numbered_scan(k) for k in range(8, 16)], cache, device="cpu", seed=0)
    assert tried == [5] and len(cache) == 5


def test_the_cache_is_bounded_in_bytes_too():
    field = Estimate(np.zeros((4, 4, 4), np.float32), brain=np.zeros((4, 4, 4), bool))
    cache = EstimateCache(most_bytes=700)
    assert cache.put(b"a", field) and cache.n_bytes == 4**3 * 5
    assert cache.put(b"a", field) and cache.n_bytes == 4**3 * 5, "the same field takes no further room"
    assert cache.put(b"b", field) and not cache.put(b"c", field)
    assert cache.n_bytes == 2 * 4**3 * 5 and cache.take(b"c") is None
    assert cache.take(b"a") is field and cache.n_bytes == 4**3 * 5
    assert cache.put(b"c", field)


@pytest.mark.parametrize("masked", [False, True])
def test_a_field_is_judged_where_its_method_found_the_brain(monkeypatch, masked):
    phantom = make_phantom((24, 28, 22), 8.0)
    brain = np.zeros(phantom.image().shape, bool)
    brain[6:18, 7:20, 6:16] = True
    estimate, judge, seen = N4.estimate, decide.judge, {}

    def spied(data, bias, region, size, **named):
        seen.update(region=region, whole_head=named["whole_head"])
        return judge(data, bias, region, size, **named)

    monkeypatch.setattr(N4, "estimate", lambda *args, **named: replace(estimate(*args, **named), brain=brain))
    monkeypatch.setattr(decide, "judge", spied)
    mask = nib.Nifti1Image(np.ones(brain.shape, np.uint8), phantom.image().affine) if masked else None
    correct_image(phantom.image(), method="n4", mask=mask)
    # A mask that was given counts for more.
    assert not seen["whole_head"] and seen["region"].all() == masked
    assert masked or (seen["region"].any() and not (seen["region"] & ~brain).any())
