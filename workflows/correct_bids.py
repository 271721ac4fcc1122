"""Correct the bias field of a BIDS data set: `pydra run workflows/correct_bids.py --bids-dir DIR --out-dir OUT`."""

from biascorr_pydra.cohort import CorrectBids, hooks

__all__ = ["CorrectBids", "hooks"]
