"""`pydra.workers.dask_resources`: where Pydra looks for the worker of that name."""

from biascorr_pydra.workers.dask_cluster import DaskResourcesWorker as Worker

__all__ = ["Worker"]
