"""`pydra.workers.lanes`: where Pydra looks for the worker of that name."""

from biascorr_pydra.workers.lanes.worker import LanesWorker as Worker

__all__ = ["Worker"]
