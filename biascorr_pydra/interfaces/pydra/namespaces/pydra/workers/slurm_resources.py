"""`pydra.workers.slurm_resources`: where Pydra looks for the worker of that name."""

from biascorr_pydra.workers.slurm.worker import SlurmResourcesWorker as Worker

__all__ = ["Worker"]
