"""Pydra workers that read what a task needs (:mod:`biascorr_pydra.resources`): local lanes, Slurm, Dask.

They are found by ``--worker NAME`` and ``Submitter(worker=NAME)`` under the names of ``pydra.workers``: ``lanes``,
``slurm-resources``, ``dask-resources``. All three place a task, or a workflow that says what it needs as a whole, on
one process and run it there (:mod:`biascorr_pydra.workers.execute`).
"""

from .needs import NodeResources, node_resources
from .placing import PlacingWorker, is_remote

__all__ = ["NodeResources", "PlacingWorker", "is_remote", "node_resources"]
