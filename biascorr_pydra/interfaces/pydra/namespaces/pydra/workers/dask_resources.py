"""`pydra.workers.dask_resources`: where Pydra looks for the worker of that name."""

from biascorr_pydra.workers.dask.worker import DaskResourcesWorker as Worker

__all__ = ["Worker"]
