"""Metrics against other programs: MRIQC's own functions, SimpleITK's Hausdorff distance, scipy's Jensen-Shannon."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from conftest import reorient
from scipy import ndimage
from scipy.spatial.distance import jensenshannon

from biascorr_pydra import metrics
from biascorr_pydra.images import nifti
from biascorr_pydra.metrics import UndefinedMetricError

#: What MRIQC 24.0.2 made of `tissues()`; the test marked mriqc makes them again:
#: pip install -c constraints.txt ".[test,nipype]" && pip install -c constraints.txt --no-deps mriqc && pytest -m mriqc
BY_MRIQC = {"cjv": 0.7568747899159664, "cnr": 1.7669198998334052}


def tissues():
    """Whole numbers and probabilities of three decimals, as MRIQC rounds them; and air. Seeded."""
    rng = np.random.default_rng(24)
    shape = (14, 13, 12)
    gm = np.round(rng.beta(0.3, 0.3, shape), 3)
    wm = np.round((1 - gm) * rng.beta(2, 0.4, shape), 3)
    data = np.round(600 * gm + 1000 * wm + 100 * (1 - gm - wm) + rng.normal(0, 40, shape))
    air = np.zeros(shape, bool)
    air[:3] = True
    data[air] = np.round(np.abs(rng.normal(0, 15, air.sum())))
    gm[air] = wm[air] = 0
    return data, gm, wm, air


def by_mriqc(data, gm, wm, air):
    """CJV as MRIQC's workflow calls it; CNR by its function, from means and standard deviations over the masks."""
    from mriqc.qc import anatomical

    stats = anatomical.summary_stats(data, {"gm": gm, "wm": wm})
    medians = [stats[tissue]["median"] for tissue in ("wm", "gm")]
    mads = [stats[tissue]["mad"] for tissue in ("wm", "gm")]
    w, g, a = data[wm > 0.5], data[gm > 0.5], data[air]
    return {
        "cjv": anatomical.cjv(*medians, *mads),
        "cnr": anatomical.cnr(w.mean(), g.mean(), a.std(), w.std(), g.std()),
    }


@pytest.mark.mriqc
def test_mriqc_says_what_is_recorded_here():
    assert by_mriqc(*tissues()) == pytest.approx(BY_MRIQC, rel=1e-12)


def test_cjv_and_cnr_are_mriqcs():
    data, gm, wm, air = tissues()
    # MRIQC rounds its medians and deviations to four decimals, of values of some hundreds.
    assert metrics.cjv_mriqc(data, gm, wm) == pytest.approx(BY_MRIQC["cjv"], rel=1e-6)
    assert metrics.cnr(data, gm > 0.5, wm > 0.5, air) == pytest.approx(BY_MRIQC["cnr"], rel=1e-12)


# --- Hausdorff


def two_masks():
    """Two overlapping ellipsoids, one with a spur, on a grid of 1.0 x 1.5 x 2.5 mm."""
    i, j, k = np.indices((30, 26, 20))
    a = ((i - 14) / 9) ** 2 + ((j - 12) / 8) ** 2 + ((k - 9) / 5) ** 2 <= 1
    b = ((i - 16) / 9) ** 2 + ((j - 12) / 6) ** 2 + ((k - 9) / 6) ** 2 <= 1
    b[16, 12, :4] = True
    return a, b, np.diag([1.0, 1.5, 2.5, 1.0])


def as_itk(array, spacing):
    img = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.astype(np.uint8).T))
    img.SetSpacing([float(size) for size in spacing])
    return img


def surface(mask):
    return mask & ~ndimage.binary_erosion(mask)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSL", "oblique"])
def test_mean_hausdorff_is_simpleitks_in_any_orientation(codes):
    a, b, affine = two_masks()
    a, b = (reorient(nib.Nifti1Image(mask.astype(np.uint8), affine), codes) for mask in (a, b))
    size = nifti.voxel_size_mm(a)
    a, b = (np.asarray(img.dataobj) > 0 for img in (a, b))
    edges = surface(a), surface(b)

    def directed(from_surface, to_surface):
        distance = SimpleITK.SignedMaurerDistanceMap(
            as_itk(to_surface, size), squaredDistance=False, useImageSpacing=True, insideIsPositive=False
        )
        return np.clip(SimpleITK.GetArrayFromImage(distance).T, 0, None)[from_surface].max()

    forth, back = directed(*edges), directed(*edges[::-1])
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*(as_itk(edge, size) for edge in edges))
    assert max(forth, back) == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-5)
    assert forth != pytest.approx(back)
    assert metrics.mean_hausdorff(a, b, voxel_size_mm=size) == pytest.approx((forth + back) / 2, rel=1e-5)
    assert metrics.mean_hausdorff(a, b, voxel_size_mm=size) == metrics.mean_hausdorff(b, a, voxel_size_mm=size)


def test_mean_hausdorff_by_hand():
    a, b = np.zeros((12, 3, 3), bool), np.zeros((12, 3, 3), bool)
    a[1:4, 1, 1], b[3:9, 1, 1] = True, True  # from A 2 voxels to B, from B 5 voxels to A
    assert metrics.mean_hausdorff(a, b, voxel_size_mm=(2, 1, 1)) == (2 * 2 + 5 * 2) / 2
    assert metrics.mean_hausdorff(a, a, voxel_size_mm=(2, 1, 1)) == 0
    with pytest.raises(UndefinedMetricError, match="empty"):
        metrics.mean_hausdorff(a, np.zeros_like(a), voxel_size_mm=(2, 1, 1))


def test_mean_hausdorff_is_between_surfaces():
    whole = np.zeros((11, 11, 11), bool)
    whole[1:10, 1:10, 1:10] = True
    hollow = whole.copy()
    hollow[4:7, 4:7, 4:7] = False  # its inner surface is 2 voxels from the outer one
    assert metrics.mean_hausdorff(whole, hollow, voxel_size_mm=(1, 1, 1)) == 2 / 2


# --- Jensen-Shannon


def test_jsd_is_the_square_of_scipys():
    p, q = np.random.default_rng(5).integers(0, 9, (2, 40))
    assert metrics.jsd([p, q]) == pytest.approx(jensenshannon(p, q, base=np.e) ** 2, rel=1e-12)
    assert metrics.jsd([p, 7 * p]) == pytest.approx(0, abs=1e-15)


def test_jsd_of_three_by_hand():
    assert metrics.jsd(np.eye(3)) == pytest.approx(np.log(3))  # none overlap: the bound
    # Mean (1/2, 1/2): log 2 for either certain one, nothing for the third.
    assert metrics.jsd([[1, 0], [0, 1], [1, 1]]) == pytest.approx(2 * np.log(2) / 3)
    for wrong, match in (([[1, 2]], "at least two"), ([[1, 2], [0, 0]], "counts"), ([[1, -1], [1, 1]], "counts")):
        with pytest.raises(UndefinedMetricError, match=match):
            metrics.jsd(wrong)


# --- fields


def test_field_scores_by_hand():
    # log truth -1, -1, 1, 1 (times .1); log estimate half of it, and 2 added, which is a factor.
    truth = np.repeat([-0.1, -0.1, 0.1, 0.1], 5).reshape(20, 1, 1)
    estimate = truth / 2 + 2
    scores = metrics.field_scores(np.exp(estimate), np.exp(truth), np.ones(truth.shape, bool))
    # estimate / truth is e^2 times e^.05 or e^-.05: sinh / cosh is its std / mean.
    expected = {"residual_cov": np.tanh(0.05), "log_field_rmse": 0.05, "field_correlation": 1, "response_slope": 0.5}
    assert scores.pop("undefined") == {}
    assert scores == pytest.approx(expected, rel=1e-12)
