"""Correct a multi-site study and compare before and after, by site.

`pydra run workflows/evaluate_abide.py --abide-dir DIR --out-dir OUT [--phenotypic CSV]`
"""

from biascorr_pydra.cohort import EvaluateAbide
from biascorr_pydra.cohort import abide_hooks as hooks

__all__ = ["EvaluateAbide", "hooks"]
