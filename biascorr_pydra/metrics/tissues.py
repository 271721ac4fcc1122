"""Metrics of an image over tissue masks, without a true field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .base import UndefinedMetricError, values_in, weighted_median
from .registry import CHUA, GANZETTI, LIKAR, MAGNOTTA, MRIQC, metric

__all__ = [
    "DSEG_LABELS",
    "cjv",
    "cjv_mriqc",
    "cjv_smoothed",
    "cnr",
    "cv",
    "cv_gm",
    "cv_wm",
    "tissue_masks",
    "wm2max",
    "wm_gm_contrast",
]

#: Labels of a dseg image, fMRIPrep's.
DSEG_LABELS = {"GM": 1, "WM": 2, "CSF": 3}
MAD_TO_SIGMA = 1.482602218505602  # 1 / Phi^-1(3/4): a normal distribution's sigma over its MAD
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))


def tissue_masks(dseg: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean masks 'GM', 'WM' and 'CSF' of a discrete segmentation labelled 1 = GM, 2 = WM, 3 = CSF."""
    return {tissue: np.asarray(dseg) == label for tissue, label in DSEG_LABELS.items()}


def _joint_variation(mu_gm: float, mu_wm: float, sigma_gm: float, sigma_wm: float) -> float:
    if np.isclose(mu_wm, mu_gm, rtol=1e-9, atol=0):
        raise UndefinedMetricError("white and gray matter have the same intensity", value=f"{mu_wm:g} and {mu_gm:g}")
    return float((sigma_wm + sigma_gm) / abs(mu_wm - mu_gm))


@metric(
    "cjv",
    group="image",
    direction="lower",
    reference=LIKAR,
    label="CJV",
    definition="Coefficient of joint variation: (sigma_WM + sigma_GM) / |mu_WM - mu_GM|, over the tissue masks",
    shown=True,
    headline=True,
    compared=True,
    judged=("before", "after", "change"),
    bench_text="coefficient of joint variation",
)
def cjv(data: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> float:
    """Coefficient of joint variation, (sigma_WM + sigma_GM) / |mu_WM - mu_GM|; lower is better.

    Parameters
    ----------
    data : array (I, J, K)
    gm, wm : boolean arrays, same shape

    Raises
    ------
    UndefinedMetricError
        A mask is nearly empty, or the two means are equal.

    Examples
    --------
    Gray matter of mean 60 and white matter of mean 100, each with standard deviation 5:

    >>> data = np.repeat([55.0, 65.0, 95.0, 105.0], 10)
    >>> cjv(data, gm=data < 80, wm=data > 80)
    0.25
    """
    g, w = values_in(data, gm, "gray matter"), values_in(data, wm, "white matter")
    return _joint_variation(g.mean(), w.mean(), g.std(), w.std())


@metric(
    "cjv_mriqc",
    group="image",
    direction="lower",
    reference=MRIQC,
    label="CJV, MRIQC's estimators",
    definition=(
        "cjv by MRIQC's estimators: probability-weighted medians for the means, and 1.4826 x median absolute deviation "
        "over voxels of more than half the largest probability for the standard deviations"
    ),
)
def cjv_mriqc(data: np.ndarray, gm_probability: np.ndarray, wm_probability: np.ndarray) -> float:
    """CJV as MRIQC computes it; lower is better.

    The probabilities are maps, or masks (probabilities 0 and 1): medians weighted by them stand for the means, and
    normal-consistent median absolute deviations about these, over voxels of more than half the largest probability,
    for the standard deviations. MRIQC also rounds the data to integers, after scaling white matter to
    1000; that is not done here, so that the value does not depend on the image's scale.
    """
    mu_gm, sigma_gm = _robust(data, gm_probability, "gray matter")
    mu_wm, sigma_wm = _robust(data, wm_probability, "white matter")
    return _joint_variation(mu_gm, mu_wm, sigma_gm, sigma_wm)


def _robust(data: np.ndarray, probability: np.ndarray, name: str) -> tuple[float, float]:
    probability = np.asarray(probability, np.float64)
    values_in(data, probability > 0, name)
    counted = (probability > 0) & np.isfinite(data)
    median = weighted_median(np.asarray(data, np.float64)[counted], probability[counted])
    core = values_in(data, probability > 0.5 * probability.max(), name)
    return median, MAD_TO_SIGMA * float(np.median(np.abs(core - median)))


@metric(
    "cjv_smoothed",
    group="image",
    direction="lower",
    reference=GANZETTI,
    label="CJV, smoothed 4 mm",
    definition="cjv after Gaussian smoothing (4 mm FWHM) inside each tissue mask, so that noise counts less",
)
def cjv_smoothed(
    data: np.ndarray, gm: np.ndarray, wm: np.ndarray, *, voxel_size_mm: Sequence[float], fwhm_mm: float = 4.0
) -> float:
    """CJV after smoothing inside each tissue; lower is better.

    Ganzetti et al. (2016) found that the CJV separates correction methods better once noise is smoothed away. The
    smoothing is a normalized convolution, G * (data mask) / G * mask, so that no intensity crosses from one tissue to
    another.
    """
    masks = ((gm, "gray matter"), (wm, "white matter"))
    g, w = (smoothed_inside(data, mask, fwhm_mm, voxel_size_mm, name) for mask, name in masks)
    return _joint_variation(g.mean(), w.mean(), g.std(), w.std())


def smoothed_inside(
    data: np.ndarray, mask: np.ndarray, fwhm_mm: float, voxel_size_mm: Sequence[float], name: str
) -> np.ndarray:
    """Values of the mask's finite voxels after Gaussian smoothing inside the mask, float64 (n,).

    ``name`` is for the message of an :class:`UndefinedMetricError`, where there are too few.
    """
    sigma = fwhm_mm * FWHM_TO_SIGMA / np.asarray(voxel_size_mm, float)
    mask = np.asarray(mask, bool) & np.isfinite(data)
    values_in(data, mask, name)
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    inside = mask[box]
    weights = inside.astype(np.float32)
    summed = ndimage.gaussian_filter(np.where(inside, data[box], 0).astype(np.float32), sigma, mode="constant")
    norm = ndimage.gaussian_filter(weights, sigma, mode="constant")
    return (summed[inside] / norm[inside]).astype(np.float64)


def cv(data: np.ndarray, mask: np.ndarray, name: str = "the mask") -> float:
    """Coefficient of variation sigma / mu over a mask; lower is better. ``name`` is for the message."""
    values = values_in(data, mask, name)
    if values.mean() <= 0:
        raise UndefinedMetricError(f"the mean of {name} is not positive", value=f"{values.mean():g}")
    return float(values.std() / values.mean())


@metric(
    "cv_wm",
    group="image",
    direction="lower",
    reference=CHUA,
    label="CV of white matter",
    advice="lower with less field, and with less contrast",
    definition="Coefficient of variation of white matter: sigma_WM / mu_WM; read it next to wm_gm_contrast",
    shown=True,
    headline=True,
    judged=("before", "after"),
    bench_text="coefficient of variation of white matter",
)
def cv_wm(data: np.ndarray, wm: np.ndarray) -> float:
    """:func:`cv` of white matter."""
    return cv(data, wm, "white matter")


@metric(
    "cv_gm",
    group="image",
    direction="lower",
    reference=CHUA,
    label="CV of gray matter",
    advice="lower with less field, and with less contrast",
    definition="Coefficient of variation of gray matter: sigma_GM / mu_GM; read it next to wm_gm_contrast",
    shown=True,
    judged=("before", "after"),
    bench_text="coefficient of variation of gray matter",
)
def cv_gm(data: np.ndarray, gm: np.ndarray) -> float:
    """:func:`cv` of gray matter."""
    return cv(data, gm, "gray matter")


@metric(
    "wm_gm_contrast",
    group="image",
    direction="none",
    reference="Michelson contrast of the tissue means",
    label="WM–GM contrast",
    advice="should not fall",
    definition=("|mu_WM - mu_GM| / (mu_WM + mu_GM), over the tissue masks; a correction should not lower it"),
    shown=True,
    headline=True,
    judged=("before", "after"),
    bench_text="|WM - GM| / (WM + GM)",
)
def wm_gm_contrast(data: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> float:
    """|mu_WM - mu_GM| / (mu_WM + mu_GM), between 0 and 1 and free of scale; a correction should not lower it."""
    g, w = values_in(data, gm, "gray matter").mean(), values_in(data, wm, "white matter").mean()
    if g < 0 or w < 0 or g + w == 0:
        raise UndefinedMetricError("the tissue means are not positive", value=f"WM {w:g}, GM {g:g}")
    return float(abs(w - g) / (w + g))


@metric(
    "cnr",
    group="image",
    direction="higher",
    reference=MAGNOTTA,
    definition="|mu_WM - mu_GM| / sqrt(sigma_air^2 + sigma_WM^2 + sigma_GM^2)",
)
def cnr(data: np.ndarray, gm: np.ndarray, wm: np.ndarray, air: np.ndarray) -> float:
    """Contrast-to-noise ratio |mu_WM - mu_GM| / sqrt(var_air + var_WM + var_GM); higher is better."""
    g, w, a = (values_in(data, m, n) for m, n in ((gm, "gray matter"), (wm, "white matter"), (air, "air")))
    noise = np.sqrt(a.var() + w.var() + g.var())
    if noise == 0:
        raise UndefinedMetricError("no variation in white matter, gray matter and air")
    return float(abs(w.mean() - g.mean()) / noise)


@metric(
    "wm2max",
    group="image",
    direction="none",
    reference=MRIQC,
    label="WM median / maximum",
    definition="Median of white matter / 99.95th percentile of the image; low where bright fat or vessels dominate",
)
def wm2max(data: np.ndarray, wm: np.ndarray) -> float:
    """Median of white matter over the image's 99.95th percentile."""
    top = np.percentile(np.asarray(data)[np.isfinite(data)], 99.95)
    if top <= 0:
        raise UndefinedMetricError("the 99.95th percentile is not positive", value=f"{top:g}")
    return float(np.median(values_in(data, wm, "white matter")) / top)
