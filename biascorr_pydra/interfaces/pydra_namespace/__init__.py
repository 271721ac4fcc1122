"""biascorr_pydra's tasks where Pydra's users look for them: installed as ``pydra.tasks.biascorr``."""

from biascorr_pydra.interfaces.pydra_normalize import NormalizeImage
from biascorr_pydra.interfaces.pydra_shell import CorrectBiasShell
from biascorr_pydra.interfaces.pydra_tasks import ApplyBias, CorrectBias, ExtractBrain, MeasureBias, SegmentTissue
from biascorr_pydra.interfaces.pydra_train import TrainCorrector, TrainCorrectors
from biascorr_pydra.interfaces.pydra_workflow import BiasCorrection, StripBrain

__all__ = [
    "ApplyBias",
    "BiasCorrection",
    "CorrectBias",
    "CorrectBiasShell",
    "ExtractBrain",
    "MeasureBias",
    "NormalizeImage",
    "SegmentTissue",
    "StripBrain",
    "TrainCorrector",
    "TrainCorrectors",
]
