"""What the Nipype interfaces share: threads and GPU as inputs, declared resources, the code's version in the hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from biascorr_pydra import __version__
from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.interfaces.extras import missing
from biascorr_pydra.methods.spec import NO_FALLBACK

try:
    from nipype.interfaces.base import (
        BaseInterfaceInputSpec,
        SimpleInterface,
        Undefined,
        isdefined,
        traits,
    )
except ImportError as error:
    raise missing("the Nipype interfaces", error, "nipype") from error

__all__ = ["RESOURCES", "Resources", "declare", "given", "resources_of"]


class Resources(NamedTuple):
    """What one node takes: processors, and memory in GB."""

    n_procs: int
    mem_gb: float


#: By correction method or other step. Memory: the peak of the whole process on a 192 x 256 x 256 head, on the CPU
#: (0.67, 1.19, 0.71, 1.75, 1.21, 0.68 and 0.46 GB), rounded up. ITK takes every core it finds.
RESOURCES = {
    "n4": Resources(1, 1.0),
    "ants-n4": Resources(2, 1.5),
    "deepem": Resources(1, 1.5),
    "deepnormalize": Resources(1, 2.0),
    "ubc": Resources(1, 1.0),
    "getnet": Resources(1, 1.0),
    "implicit": Resources(1, 1.0),
    "brain": Resources(1, 2.0),
    "tissue": Resources(1, 1.5),
    "metrics": Resources(1, 1.0),
    "apply": Resources(1, 0.7),
}
OTHER_METHOD = Resources(1, 3.0)


def resources_of(name: str) -> Resources:
    """Resources of a correction method or step; a generous guess for a method that the table does not have."""
    return RESOURCES.get(name, OTHER_METHOD)


def declare(node, name: str, *, use_gpu: bool = False):
    """Declare what a Nipype node takes, so that MultiProc counts it and Slurm is asked for it; returns the node.

    MultiProc counts ``n_procs`` and ``mem_gb``, and as many GPU slots as ``n_procs`` for a node whose ``use_gpu`` is
    true; such a node is therefore given one processor.
    Nipype's Slurm plugin passes only ``plugin_args`` on, so processors, memory and GPU are written there too.

    Parameters
    ----------
    node : nipype Node, MapNode or JoinNode
    name : correction method, or step, of :data:`RESOURCES`
    use_gpu : bool
    """
    wanted = resources_of(name)
    node.n_procs = 1 if use_gpu else wanted.n_procs
    node._mem_gb = wanted.mem_gb  # Nipype has no setter
    arguments = [f"--cpus-per-task={node.n_procs}", f"--mem={round(wanted.mem_gb * 1024)}M"]
    if use_gpu:
        arguments.append("--gres=gpu:1")
    own = node.plugin_args.get("sbatch_args", "")
    node.plugin_args = {**node.plugin_args, "sbatch_args": " ".join([own, *arguments]).strip()}
    return node


def given(value: Any, default: Any = None) -> Any:
    """A trait's value, or ``default`` where it is not defined."""
    return value if isdefined(value) else default


class VersionedInputSpec(BaseInterfaceInputSpec):
    """Inputs whose hash follows the code: another version computes again, in a working directory that exists."""

    def get_hashval(self, hash_method=None):
        listed, hashed = super().get_hashval(hash_method)
        code = self.implementation()
        return [*listed, ("implementation", code)], hashlib.md5(f"{hashed} {code}".encode()).hexdigest()

    def implementation(self) -> str:
        """Version of code and weights behind the interface."""
        return __version__


class ThreadedInputSpec(VersionedInputSpec):
    """Inputs of an interface that computes with torch."""

    num_threads = traits.Int(
        1, usedefault=True, nohash=True, desc="threads of torch on the CPU; a node's n_procs sets it (-1: all cores)"
    )
    use_gpu = traits.Bool(
        False, usedefault=True, desc="run on the GPU, and take one of the GPU slots that the plugin counts"
    )
    use_cuda = traits.Bool(False, usedefault=True, desc="the same as use_gpu")


def method_version(method: str, fallback: str = NO_FALLBACK) -> str:
    """Version of this package, of a correction method, of its weights and of its fallback, as one string."""
    from biascorr_pydra.methods.identity import implementation

    try:
        return f"{__version__} {implementation(method, fallback)}"
    except BiasCorrError:  # an unknown method says so when the node runs, not while a graph is hashed
        return __version__


class FileInterface(SimpleInterface):
    """An interface over one function between files, which it lets write into the node's folder."""

    _version = __version__

    def _run_interface(self, runtime):
        threads = given(getattr(self.inputs, "num_threads", Undefined), -1)
        if threads > 0:
            import torch

            before = torch.get_num_threads()
            torch.set_num_threads(threads)
        try:
            found = self._compute(Path(runtime.cwd))
        finally:
            if threads > 0:
                torch.set_num_threads(before)
        self._results.update({name: str(value) for name, value in found.items() if value is not None})
        return runtime

    def _compute(self, folder: Path) -> dict[str, Path | None]:
        """Call the function; output name -> file."""
        raise NotImplementedError

    def _device(self) -> str:
        # Never "auto": a node that took a GPU without saying so would share it with one that was counted.
        return "cuda" if self.inputs.use_gpu or self.inputs.use_cuda else "cpu"
