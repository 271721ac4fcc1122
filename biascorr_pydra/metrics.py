"""Metrics: what each one is, in which unit, and which way is better; one table of them (:data:`METRICS`).

Image metrics judge an image from its tissue masks, without a true field. Field metrics describe a field. Scores compare
a field, an image or a mask with the truth. A metric that cannot be computed is undefined: its function raises
:class:`UndefinedMetricError`, and the collecting functions give None and the reason, never a number that stands for it.

To compare methods, use one segmentation for all of them, and say whose. A coefficient of variation also falls when the
contrast does, so ``cv_wm`` and ``cv_gm`` are to be read next to ``wm_gm_contrast``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .errors import BiasCorrError

__all__ = [
    "DSEG_LABELS",
    "METRICS",
    "Metric",
    "UndefinedMetricError",
    "cjv",
    "cjv_mriqc",
    "cjv_smoothed",
    "cnr",
    "cv",
    "dice",
    "field_correlation",
    "field_metrics",
    "field_scores",
    "image_metrics",
    "inu_range",
    "log_field_rmse",
    "relative_mae",
    "residual_cov",
    "response_slope",
    "tissue_masks",
    "wm2max",
    "wm_gm_contrast",
]

#: Labels of a dseg image, fMRIPrep's.
DSEG_LABELS = {"GM": 1, "WM": 2, "CSF": 3}
MIN_VOXELS = 10
MAD_TO_SIGMA = 1.482602218505602  # 1 / Phi^-1(3/4): a normal distribution's sigma over its MAD
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))


class UndefinedMetricError(BiasCorrError, ValueError):
    """The metric has no value for these data; the message is the reason."""


@dataclass(frozen=True)
class Metric:
    """One metric's entry in the catalogue.

    Attributes
    ----------
    name : str
    unit : str
        "1" for a dimensionless number.
    direction : {'lower', 'higher', 'one', 'none'}
        Which values are better: lower, higher, nearest to one, or neither (a description).
    definition : str
        The equation, in words and symbols.
    reference : str
    """

    name: str
    unit: str
    direction: str
    definition: str
    reference: str


LIKAR = "Likar et al. 2001, doi:10.1109/42.974934"
MAGNOTTA = "Magnotta et al. 2006, doi:10.1007/s10278-006-0264-x"
CHUA = "Chua et al. 2009, doi:10.1002/jmri.21768"
GANZETTI = "Ganzetti et al. 2016, doi:10.3389/fninf.2016.00010"
MRIQC = "MRIQC: Esteban et al. 2017, doi:10.1371/journal.pone.0184661"
SIMKO = "Simko et al., A generalized network for MRI intensity normalization, MIDL 2019"
DICE = "Dice 1945, doi:10.2307/1932409"
HERE = "this package"

# fmt: off
_ROWS = (
    ("cjv", "lower", LIKAR,
     "Coefficient of joint variation: (sigma_WM + sigma_GM) / |mu_WM - mu_GM|, over the tissue masks"),
    ("cjv_mriqc", "lower", MRIQC,
     "cjv by MRIQC's estimators: probability-weighted medians for the means, and 1.4826 x median absolute deviation "
     "over voxels of more than half the largest probability for the standard deviations"),
    ("cjv_smoothed", "lower", GANZETTI,
     "cjv after Gaussian smoothing (4 mm FWHM) inside each tissue mask, so that noise counts less"),
    ("cv_wm", "lower", CHUA,
     "Coefficient of variation of white matter: sigma_WM / mu_WM; read it next to wm_gm_contrast"),
    ("cv_gm", "lower", CHUA,
     "Coefficient of variation of gray matter: sigma_GM / mu_GM; read it next to wm_gm_contrast"),
    ("wm_gm_contrast", "none", "Michelson contrast of the tissue means",
     "|mu_WM - mu_GM| / (mu_WM + mu_GM), over the tissue masks; a correction should not lower it"),
    ("cnr", "higher", MAGNOTTA,
     "|mu_WM - mu_GM| / sqrt(sigma_air^2 + sigma_WM^2 + sigma_GM^2)"),
    ("wm2max", "none", MRIQC,
     "Median of white matter / 99.95th percentile of the image; low where bright fat or vessels dominate"),
    ("inu_range", "none", MRIQC,
     "|95th - 5th percentile| of the bias field over the mask, the field having mean 1 there"),
    ("inu_med", "none", MRIQC,
     "Median of the bias field over the mask, the field having mean 1 there"),
    ("field_min", "none", HERE, "Smallest value of the bias field over the mask"),
    ("field_max", "none", HERE, "Largest value of the bias field over the mask"),
    ("residual_cov", "lower", CHUA,
     "Standard deviation / mean over the mask of estimated field / true field; 0 when only a factor differs"),
    ("log_field_rmse", "lower", HERE,
     "Root mean square over the mask of log estimate - log truth, after each lost its mean there"),
    ("field_correlation", "higher", HERE,
     "Pearson's r of log estimate and log truth over the mask; blind to a correction that is too weak, so read it next "
     "to response_slope"),
    ("response_slope", "one", HERE,
     "Least-squares slope of log estimate on log truth over the mask: the fraction of the true field that was found"),
    ("relative_mae", "lower", SIMKO,
     "mean |s x_hat - x| / mean |x| over the mask; x is the truth, s minimizes it (L1) or the squared error (L2)"),
    ("dice", "higher", DICE, "2 |A and B| / (|A| + |B|) of two masks"),
)
# fmt: on

#: The catalogue: name -> Metric. All are dimensionless.
METRICS: dict[str, Metric] = {
    name: Metric(name, "1", direction, definition, reference) for name, direction, reference, definition in _ROWS
}


# --- tissue statistics


def tissue_masks(dseg: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean masks 'GM', 'WM' and 'CSF' of a discrete segmentation labelled 1 = GM, 2 = WM, 3 = CSF."""
    return {tissue: np.asarray(dseg) == label for tissue, label in DSEG_LABELS.items()}


def _values(data: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(data, np.float64)[np.asarray(mask, bool)]
    values = values[np.isfinite(values)]
    if values.size < MIN_VOXELS:
        raise UndefinedMetricError(f"{name} has fewer than {MIN_VOXELS} voxels", value=int(values.size))
    return values


def _joint_variation(mu_gm: float, mu_wm: float, sigma_gm: float, sigma_wm: float) -> float:
    if np.isclose(mu_wm, mu_gm, rtol=1e-9, atol=0):
        raise UndefinedMetricError("white and gray matter have the same intensity", value=f"{mu_wm:g} and {mu_gm:g}")
    return float((sigma_wm + sigma_gm) / abs(mu_wm - mu_gm))


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
    """
    g, w = _values(data, gm, "gray matter"), _values(data, wm, "white matter")
    return _joint_variation(g.mean(), w.mean(), g.std(), w.std())


def cjv_mriqc(data: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> float:
    """CJV as MRIQC computes it; lower is better.

    ``gm`` and ``wm`` are probability maps, or masks (probabilities 0 and 1): medians weighted by them stand for the
    means, and normal-consistent median absolute deviations about these, over voxels of more than half the largest
    probability, for the standard deviations. MRIQC also rounds the data to integers, after scaling white matter to
    1000; that is not done here, so that the value does not depend on the image's scale.
    """
    (g, sigma_g), (w, sigma_w) = (_robust(data, p, n) for p, n in ((gm, "gray matter"), (wm, "white matter")))
    return _joint_variation(g, w, sigma_g, sigma_w)


def _robust(data: np.ndarray, probability: np.ndarray, name: str) -> tuple[float, float]:
    probability = np.asarray(probability, np.float64)
    _values(data, probability > 0, name)
    counted = (probability > 0) & np.isfinite(data)
    median = _weighted_median(np.asarray(data, np.float64)[counted], probability[counted])
    core = _values(data, probability > 0.5 * probability.max(), name)
    return median, MAD_TO_SIGMA * float(np.median(np.abs(core - median)))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(weights[order])
    half = below[-1] / 2
    i = int(np.searchsorted(below, half))
    if below[i] == half and i + 1 < values.size:
        return float((values[i] + values[i + 1]) / 2)
    return float(values[i])


def cjv_smoothed(
    data: np.ndarray, gm: np.ndarray, wm: np.ndarray, *, voxel_size_mm: Sequence[float], fwhm_mm: float = 4.0
) -> float:
    """CJV after smoothing inside each tissue; lower is better.

    found that the CJV separates correction methods better once noise is smoothed away. The smoothing is
    a normalized convolution, G * (data mask) / G * mask, so no intensity crosses from one tissue to another.
    """
    sigma = fwhm_mm * FWHM_TO_SIGMA / np.asarray(voxel_size_mm, float)
    g, w = (_smooth(data, mask, sigma, n) for mask, n in ((gm, "gray matter"), (wm, "white matter")))
    return _joint_variation(g.mean(), w.mean(), g.std(), w.std())


def _smooth(data: np.ndarray, mask: np.ndarray, sigma: np.ndarray, name: str) -> np.ndarray:
    mask = np.asarray(mask, bool) & np.isfinite(data)
    _values(data, mask, name)
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    inside = mask[box]
    weights = inside.astype(np.float32)
    summed = ndimage.gaussian_filter(np.where(inside, data[box], 0).astype(np.float32), sigma, mode="constant")
    norm = ndimage.gaussian_filter(weights, sigma, mode="constant")
    return (summed[inside] / norm[inside]).astype(np.float64)


def cv(data: np.ndarray, mask: np.ndarray, name: str = "the mask") -> float:
    """Coefficient of variation sigma / mu over a mask; lower is better. ``name`` is for the message."""
    values = _values(data, mask, name)
    if values.mean() <= 0:
        raise UndefinedMetricError(f"the mean of {name} is not positive", value=f"{values.mean():g}")
    return float(values.std() / values.mean())


def wm_gm_contrast(data: np.ndarray, gm: np.ndarray, wm: np.ndarray) -> float:
    """|mu_WM - mu_GM| / (mu_WM + mu_GM), between 0 and 1 and free of scale; a correction should not lower it."""
    g, w = _values(data, gm, "gray matter").mean(), _values(data, wm, "white matter").mean()
    if g < 0 or w < 0 or g + w == 0:
        raise UndefinedMetricError("the tissue means are not positive", value=f"WM {w:g}, GM {g:g}")
    return float(abs(w - g) / (w + g))


def cnr(data: np.ndarray, gm: np.ndarray, wm: np.ndarray, air: np.ndarray) -> float:
    """Contrast-to-noise ratio |mu_WM - mu_GM| / sqrt(var_air + var_WM + var_GM); higher is better."""
    g, w, a = (_values(data, m, n) for m, n in ((gm, "gray matter"), (wm, "white matter"), (air, "air")))
    noise = np.sqrt(a.var() + w.var() + g.var())
    if noise == 0:
        raise UndefinedMetricError("no variation in white matter, gray matter and air")
    return float(abs(w.mean() - g.mean()) / noise)


def wm2max(data: np.ndarray, wm: np.ndarray) -> float:
    """Median of white matter over the image's 99.95th percentile."""
    top = np.percentile(np.asarray(data)[np.isfinite(data)], 99.95)
    if top <= 0:
        raise UndefinedMetricError("the 99.95th percentile is not positive", value=f"{top:g}")
    return float(np.median(_values(data, wm, "white matter")) / top)


# --- fields


def inu_range(bias: np.ndarray, mask: np.ndarray) -> float:
    """|95th - 5th percentile| of the bias field over the mask (mean 1 there)."""
    low, high = np.percentile(_values(bias, mask, "the mask"), (5, 95))
    return float(abs(high - low))


def residual_cov(bias: np.ndarray, true_bias: np.ndarray, mask: np.ndarray) -> float:
    """Coefficient of variation over the mask of estimated field / true field; lower is better.

    Both fields are linear and positive; any factor between them cancels.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return cv(np.asarray(bias, np.float64) / true_bias, mask)


def _centered(log_bias, true_log_bias, mask) -> tuple[np.ndarray, np.ndarray]:
    estimate, truth = _values(log_bias, mask, "the mask"), _values(true_log_bias, mask, "the mask")
    if estimate.size != truth.size:
        raise UndefinedMetricError("the fields are not finite at the same voxels")
    return estimate - estimate.mean(), truth - truth.mean()


def log_field_rmse(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square difference of two log fields over the mask, each without its mean there; lower is better."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    return float(np.sqrt(np.mean((estimate - truth) ** 2)))


def field_correlation(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Pearson's r of two log fields over the mask; higher is better, but see :func:`response_slope`."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    scale = np.sqrt((estimate**2).sum() * (truth**2).sum())
    if scale == 0:
        raise UndefinedMetricError("one of the fields is constant over the mask")
    return float((estimate * truth).sum() / scale)


def response_slope(log_bias: np.ndarray, true_log_bias: np.ndarray, mask: np.ndarray) -> float:
    """Least-squares slope of log estimate on log truth over the mask; 1 is best, 0 means nothing was corrected."""
    estimate, truth = _centered(log_bias, true_log_bias, mask)
    if not truth.any():
        raise UndefinedMetricError("the true field is constant over the mask")
    return float((estimate * truth).sum() / (truth**2).sum())


# --- images and masks against the truth


def relative_mae(data: np.ndarray, truth: np.ndarray, mask: np.ndarray, *, scale: str = "L1") -> float:
    """mean |s data - truth| / mean |truth| over the mask; lower is better.

    ``scale`` says which s: 'L1' minimizes this very error (a weighted median), 'L2' the squared error, 'none' is 1.
    """
    x_hat, x = _values(data, mask, "the mask"), _values(truth, mask, "the mask")
    if x_hat.size != x.size:
        raise UndefinedMetricError("the images are not finite at the same voxels")
    if not x.any() or not x_hat.any():
        raise UndefinedMetricError("an image is 0 all over the mask")
    factors: dict[str, Callable[[], float]] = {
        "L1": lambda: _weighted_median(x[x_hat != 0] / x_hat[x_hat != 0], np.abs(x_hat[x_hat != 0])),
        "L2": lambda: float((x_hat * x).sum() / (x_hat**2).sum()),
        "none": lambda: 1.0,
    }
    return float(np.abs(factors[scale]() * x_hat - x).mean() / np.abs(x).mean())


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap 2 |A and B| / (|A| + |B|) of two masks; higher is better."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    total = int(a.sum()) + int(b.sum())
    if total == 0:
        raise UndefinedMetricError("both masks are empty")
    return float(2 * np.logical_and(a, b).sum() / total)


# --- collections


def _collect(functions: dict[str, Callable[[], float]]) -> dict:
    """Values by name, None where undefined, and the reasons under 'undefined'."""
    values: dict = {}
    undefined: dict[str, str] = {}
    for name, function in functions.items():
        try:
            values[name] = function()
        except UndefinedMetricError as reason:
            values[name], undefined[name] = None, str(reason)
    values["undefined"] = undefined
    return values


def image_metrics(
    data: np.ndarray,
    gm: np.ndarray,
    wm: np.ndarray,
    *,
    voxel_size_mm: Sequence[float],
    gm_probability: np.ndarray | None = None,
    wm_probability: np.ndarray | None = None,
    air: np.ndarray | None = None,
) -> dict:
    """The metrics of one image that need no truth.

    Parameters
    ----------
    data : array (I, J, K)
        Acquired or corrected intensities.
    gm, wm : boolean arrays, same shape
    voxel_size_mm : three floats
    gm_probability, wm_probability : arrays, same shape, optional
        For ``cjv_mriqc``; the masks stand in.
    air : boolean array, same shape, optional
        Adds ``cnr``.

    Returns
    -------
    dict
        Metric name -> float, or None where it has no value; and 'undefined': metric name -> reason.
    """
    functions = {
        "cjv": lambda: cjv(data, gm, wm),
        "cjv_mriqc": lambda: cjv_mriqc(
            data, gm if gm_probability is None else gm_probability, wm if wm_probability is None else wm_probability
        ),
        "cjv_smoothed": lambda: cjv_smoothed(data, gm, wm, voxel_size_mm=voxel_size_mm),
        "cv_wm": lambda: cv(data, wm, "white matter"),
        "cv_gm": lambda: cv(data, gm, "gray matter"),
        "wm_gm_contrast": lambda: wm_gm_contrast(data, gm, wm),
        "wm2max": lambda: wm2max(data, wm),
    }
    if air is not None:
        functions["cnr"] = lambda: cnr(data, gm, wm, air)
    return _collect(functions)


def field_metrics(bias: np.ndarray, mask: np.ndarray) -> dict:
    """inu_range, inu_med, field_min and field_max of a linear field over the mask; 'undefined' as above."""
    return _collect(
        {
            "inu_range": lambda: inu_range(bias, mask),
            "inu_med": lambda: float(np.median(_values(bias, mask, "the mask"))),
            "field_min": lambda: float(_values(bias, mask, "the mask").min()),
            "field_max": lambda: float(_values(bias, mask, "the mask").max()),
        }
    )


def field_scores(bias: np.ndarray, true_bias: np.ndarray, mask: np.ndarray) -> dict:
    """The four scale-free scores of a linear field against the true one; 'undefined' as above."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(bias), np.log(true_bias)
    return _collect(
        {
            "residual_cov": lambda: residual_cov(bias, true_bias, mask),
            "log_field_rmse": lambda: log_field_rmse(*logs, mask),
            "field_correlation": lambda: field_correlation(*logs, mask),
            "response_slope": lambda: response_slope(*logs, mask),
        }
    )
