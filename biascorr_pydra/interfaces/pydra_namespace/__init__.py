"""biascorr_pydra's tasks where Pydra's users look for them: installed as ``pydra.tasks.biascorr``."""

from biascorr_pydra.interfaces.pydra_tasks import ApplyBias, CorrectBias, ExtractBrain, MeasureBias, SegmentTissue

__all__ = ["ApplyBias", "CorrectBias", "ExtractBrain", "MeasureBias", "SegmentTissue"]
