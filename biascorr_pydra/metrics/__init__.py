"""Metrics: what each one is, in which unit, and which way is better; each declared once (:mod:`.registry`).

Image metrics judge an image from its tissue masks, without a true field. Field metrics describe a field. Scores compare
a field, an image or a mask with the truth. A metric that cannot be computed is undefined: its function raises
:class:`UndefinedMetricError`, and the collecting functions give None and the reason, never a number that stands for it.

To compare methods, use one segmentation for all of them, and say whose. A coefficient of variation also falls when the
contrast does, so ``cv_wm`` and ``cv_gm`` are to be read next to ``wm_gm_contrast``.
"""

from .base import UndefinedMetricError
from .collected import field_metrics, field_scores, image_metrics, undefined_image_metrics
from .fields import field_correlation, inu_range, log_field_rmse, residual_cov, response_slope
from .histogram import HISTOGRAM_BINS, HISTOGRAM_RANGE, normalized_histogram, normalized_histograms
from .registry import METRICS, Metric, in_group, metric, shown_metrics
from .spread import smoothed_log, tissue_unevenness, unevenness
from .tissues import (
    DSEG_LABELS,
    cjv,
    cjv_mriqc,
    cjv_smoothed,
    cnr,
    cv,
    tissue_masks,
    wm2max,
    wm_gm_contrast,
)
from .truth import dice, jsd, mean_hausdorff, relative_mae

__all__ = [
    "DSEG_LABELS",
    "HISTOGRAM_BINS",
    "HISTOGRAM_RANGE",
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
    "in_group",
    "inu_range",
    "jsd",
    "log_field_rmse",
    "mean_hausdorff",
    "metric",
    "normalized_histogram",
    "normalized_histograms",
    "relative_mae",
    "residual_cov",
    "response_slope",
    "shown_metrics",
    "smoothed_log",
    "tissue_masks",
    "tissue_unevenness",
    "undefined_image_metrics",
    "unevenness",
    "wm2max",
    "wm_gm_contrast",
]
