"""Learned normalization of images of several sites: DeepNormalize's normalized image, of one scan or of a cohort.

The normalized image is no corrected one: its contrast is changed by design. The smooth field that the normalization
implies is what the corrector of the same name finds (:mod:`biascorr_pydra.methods.deepnormalize.corrector`).
"""

from .cohort import Outcome, normalize_cohort
from .file import Normalization, normalize_file

__all__ = ["Normalization", "Outcome", "normalize_cohort", "normalize_file"]
