"""Scans for the tests of n4, and how its fields are compared with those of other programs: fixtures and helpers."""

from functools import cache

import ants
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nilearn.datasets import load_mni152_template

from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan

N4, AntsN4 = get_corrector("n4"), get_corrector("ants-n4")
QUICK = {"shrink_factor": 2, "iterations": (4, 2)}


@cache
def template():
    """The MNI152 T1w at 1 mm; not to be written to."""
    return load_mni152_template(resolution=1).get_fdata(dtype=np.float32)


def acquisition(shape, step=2, contrast="T1w", seed=0, spacing=None):
    """A part of the MNI152 T1w with an injected field and noise: data, brain, field, spacing."""
    whole = template()[::step, ::step, ::step]
    data = whole[tuple(slice((a - n) // 2, (a - n) // 2 + n) for a, n in zip(whole.shape, shape, strict=True))]
    brain = data > 0
    data = data / data.max() * 900
    if contrast != "T1w":
        data = np.where(brain, 1000 - 0.8 * data, 0) if contrast == "T2w" else np.where(brain, 300 + 0.3 * data, 0)
    x, y, z = (
        np.linspace(-1, 1, n).reshape(s) for n, s in zip(shape, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
    )
    field = np.exp(0.25 * x + 0.2 * y**2 - 0.15 * y * z + 0.1 * z).astype(np.float32)
    noise = np.random.default_rng(seed).normal(0, 8, shape)
    return np.abs(data * field + noise).astype(np.float32) + 1, brain, field, spacing or (float(step),) * 3


def scan_of(data, mask=None, spacing=(2.0, 2.0, 2.0), weight=None):
    return Scan(data, np.ones(data.shape, bool), mask, spacing, weight)


@pytest.fixture(scope="session")
def brain_scan():
    data, brain, _, spacing = acquisition((84, 97, 75))
    return scan_of(data, brain, spacing)


def log_bias(estimate, scan):
    return estimate.log_bias.on_grid(scan.data.shape)


def differences(log_bias_found, expected, mask):
    """Relative differences of two bias fields in the mask: 99.9th percentile and maximum."""
    relative = np.abs(np.expm1(np.asarray(log_bias_found, float)[mask] - np.asarray(expected, float)[mask]))
    return np.quantile(relative, 0.999), relative.max()


def assert_agree(log_bias_found, expected, mask):
    typical, largest = differences(log_bias_found, expected, mask)
    assert typical < 1e-4
    assert largest < 1e-3


def as_ants(array, spacing):
    return ants.from_numpy(np.asarray(array, np.float32), spacing=spacing)


def log_bias_sitk(scan, mask, *, shrink=1, **settings):
    """SimpleITK's log bias: estimated on the shrunk image, evaluated on the whole."""
    image, mask_image = (
        None if a is None else sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(a, t).T))
        for a, t in ((scan.data, np.float32), (mask, np.uint8))
    )
    for each in filter(None, (image, mask_image)):
        each.SetSpacing(scan.voxel_size_mm)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    for name, value in settings.items():
        getattr(corrector, f"Set{name}")(value)
    small = [each if shrink == 1 else sitk.Shrink(each, [shrink] * 3) for each in (image, mask_image) if each]
    corrector.Execute(*small)
    return sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)).T
