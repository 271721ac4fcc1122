"""Train correctors on data of one's own.

`pydra run workflows/train_corrector.py --method ubc --data-dir DIR --out-dir OUT [--device cuda] [--config-file FILE]`
"""

from biascorr_pydra.interfaces.pydra.train import TrainCorrectors, hooks

__all__ = ["TrainCorrectors", "hooks"]
