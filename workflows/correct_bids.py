"""Correct the bias field of a BIDS data set: `pydra run workflows/correct_bids.py --bids-dir DIR --out-dir OUT`."""

from biascorr_pydra.interfaces.pydra.cohort import CorrectBids
from biascorr_pydra.interfaces.pydra.cohort_hooks import hooks

__all__ = ["CorrectBids", "hooks"]
