"""What the Nipype interfaces share: threads and GPU as inputs, declared resources, the code's version in the hash."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from biascorr_pydra import __version__
from biascorr_pydra.correction.options import DEFAULTS, help_of
from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.interfaces.extras import missing
from biascorr_pydra.methods import MethodSpec, get_corrector
from biascorr_pydra.methods.spec import NO_FALLBACK
from biascorr_pydra.resources import Resources

try:
    from nipype.interfaces.base import (
        BaseInterfaceInputSpec,
        File,
        SimpleInterface,
        Undefined,
        isdefined,
        traits,
    )
except ImportError as error:
    raise missing("the Nipype interfaces", error, "nipype") from error

__all__ = [
    "STEPS",
    "FileInterface",
    "ThreadedInputSpec",
    "VersionedInputSpec",
    "declare",
    "file_trait",
    "given",
    "method_version",
    "option_trait",
    "resources_of",
]


#: What a step takes. Memory: the peak of the whole process on the head of :data:`VOXELS`, on the CPU, rounded up.
STEPS = {
    "brain": Resources(mem_gb=2.0),
    "tissue": Resources(mem_gb=1.5),
    "metrics": Resources(mem_gb=1.0),
    "apply": Resources(mem_gb=0.7),
}
#: A node does not know its image when it is declared: a head of so many voxels is reckoned with.
VOXELS = 192 * 256 * 256


def resources_of(name: str) -> Resources:
    """What a step of :data:`STEPS` or a correction method takes on the CPU.

    Raises
    ------
    UnknownMethodError
    """
    if name in STEPS:
        return STEPS[name]
    method = get_corrector(MethodSpec.parse(name).method)
    memory = method.memory_gb + method.bytes_per_voxel * VOXELS / 1e9
    return Resources(cpus=2 if method.takes_all_cores else 1, mem_gb=math.ceil(10 * memory) / 10)


def declare(node: Any, name: str, *, use_gpu: bool = False) -> Any:
    """Declare what a Nipype node takes, so that MultiProc counts it and Slurm is asked for it; returns the node.

    MultiProc counts ``n_procs`` and ``mem_gb``, and as many GPU slots as ``n_procs`` for a node whose ``use_gpu`` is
    true; such a node is therefore given one processor.
    Nipype's Slurm plugin passes only ``plugin_args`` on, so processors, memory and GPU are written there too.

    Parameters
    ----------
    node : nipype Node, MapNode or JoinNode
    name : correction method, or step of :data:`STEPS`
    use_gpu : bool
    """
    wanted = resources_of(name)
    assert wanted.mem_gb is not None, "every step and method states its memory"
    node.n_procs = 1 if use_gpu else wanted.cpus
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


def option_trait(name: str) -> traits.TraitType:
    """The trait of a correction's option, with its default and help from the one list of them."""
    default, described = getattr(DEFAULTS, name), {"desc": help_of(name)}
    if name in ("options", "metadata"):
        return traits.Dict(traits.Str, traits.Any, **described)
    if default is None:
        return traits.Str(**described)
    kind = {bool: traits.Bool, int: traits.Int, str: traits.Str}[type(default)]
    return kind(default, usedefault=True, **described)


def file_trait(name: str, **metadata: bool) -> File:
    """The trait of a file that is read or written, with its help from the same list."""
    return File(desc=help_of(name), **metadata)


class VersionedInputSpec(BaseInterfaceInputSpec):
    """Inputs whose hash follows the code: another version computes again, in a working directory that exists."""

    def get_hashval(self, hash_method: str | None = None) -> tuple[list[tuple[str, Any]], str]:
        listed, hashed = super().get_hashval(hash_method)
        code = self.implementation()
        return [*listed, ("implementation", code)], hashlib.md5(f"{hashed} {code}".encode()).hexdigest()

    def implementation(self) -> str:
        """Version of code and weights behind the interface."""
        return __version__


class DeviceInputSpec(VersionedInputSpec):
    """Inputs of an interface that may run on a GPU."""

    use_gpu = traits.Bool(
        False, usedefault=True, desc="run on the GPU, and take one of the GPU slots that the plugin counts"
    )
    use_cuda = traits.Bool(False, usedefault=True, desc="the same as use_gpu")


class ThreadedInputSpec(DeviceInputSpec):
    """Inputs of an interface that computes with torch."""

    num_threads = traits.Int(
        1, usedefault=True, nohash=True, desc="threads of torch on the CPU; a node's n_procs sets it (-1: all cores)"
    )


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
            outputs = self.compute(Path(runtime.cwd))
        finally:
            if threads > 0:
                torch.set_num_threads(before)
        self._results.update({name: str(value) for name, value in outputs.items() if value is not None})
        return runtime

    def compute(self, folder: Path) -> dict[str, Path | None]:
        """Call the function and let it write into ``folder``; output name -> file."""
        raise NotImplementedError

    def _device(self) -> str:
        # Never "auto": a node that took a GPU without saying so would share it with one that was counted.
        return "cuda" if self.inputs.use_gpu or self.inputs.use_cuda else "cpu"
