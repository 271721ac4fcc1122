"""`pydra.workers.toy`: where Pydra looks for the worker of that name."""

from toy_worker.worker import ToyWorker as Worker

__all__ = ["Worker"]
