"""biascorr_pydra's tasks where Pydra's users look for them: installed as ``pydra.tasks.biascorr``."""

from biascorr_pydra.interfaces.pydra.normalize import NormalizeImage
from biascorr_pydra.interfaces.pydra.shell import CorrectBiasShell
from biascorr_pydra.interfaces.pydra.tasks import ApplyBias, CorrectBias, ExtractBrain, MeasureBias, SegmentTissue
from biascorr_pydra.interfaces.pydra.train import TrainCorrector, TrainCorrectors
from biascorr_pydra.interfaces.pydra.workflow import AverageFrames, BiasCorrection, StripBrain

__all__ = [
    "ApplyBias",
    "AverageFrames",
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
