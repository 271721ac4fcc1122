"""The catalogue of metrics: equation, unit, direction and reference of each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METRICS", "Metric"]


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
HUTTENLOCHER = "Huttenlocher et al. 1993, doi:10.1109/34.232073"
LIN = "Lin 1991, doi:10.1109/18.61115"
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
    ("mean_hausdorff", "lower", HUTTENLOCHER,
     "Mean of the two directed Hausdorff distances between the surfaces of two masks: half of the largest distance "
     "from a surface voxel of A to the surface of B, plus half of that from B to A. Not the modified Hausdorff "
     "distance, which has means for maxima"),
    ("jsd", "lower", LIN,
     "Jensen-Shannon divergence of K intensity distributions: mean over i of KL(p_i || mean of the p), natural "
     "logarithm; 0 when all are the same, ln K when none overlap"),
)
# fmt: on

#: In another unit than "1".
_UNITS = {"mean_hausdorff": "mm"}

#: The catalogue: name -> Metric.
METRICS: dict[str, Metric] = {
    name: Metric(name, _UNITS.get(name, "1"), direction, definition, reference)
    for name, direction, reference, definition in _ROWS
}
