"""The contract that every corrector fulfils, whether it comes with this package or with another.

A corrector turns an image on the grid it declares, and an optional mask, into a log bias field: on that grid, or as the
control points of a B-spline over it. It does nothing else. Reading, resampling, scaling, dividing, data types, headers,
sidecars and reports happen once, outside (:mod:`biascorr_pydra.correction.correct`).

To add a method, write a frozen dataclass that derives from :class:`Corrector`, state its facts as class attributes, and
fill in :meth:`Corrector.estimate`. Its fields are the method's parameters. It is then found:

- in this package, as ``CORRECTOR`` of ``methods/NAME/corrector.py`` (with _ for -);
- from another package, as an entry point ``NAME = "module:Class"`` of the group ``biascorr_pydra.methods``.
  ``docs/plugin_example`` is a whole such package.

The method is then offered by name by the shell, Python, Pydra, Nipype, the benchmark and cohort runs, and its fields
are judged as those of any other. What a class must have is checked when the method is first used
(:func:`biascorr_pydra.methods.registry.get_corrector`); what its fields must be, by
:mod:`biascorr_pydra.correction.estimate` for every image: finite, of the grid's shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.field import LogBiasSpline

from .reference import Reference

__all__ = ["Corrector", "Estimate", "Scan"]


@dataclass(frozen=True)
class Scan:
    """What a corrector is given.

    Attributes
    ----------
    data : float32 array, shape (I, J, K)
        Acquired intensities, on the native grid, or on the corrector's ``grid_shape`` in RAS+ order. Finite: voxels
        that were NaN or infinite are 0 here and excluded by ``valid``.
    valid : boolean array, same shape
        Voxels whose acquired value was finite.
    mask : boolean array, same shape, or None
        Where the field is to be estimated, if the user gave a mask.
    voxel_size_mm : three floats
    weight : float32 array, same shape, or None
        How much each voxel counts, 0 or more, if the user gave a weight image. Only N4 uses it.
    """

    data: np.ndarray
    valid: np.ndarray
    mask: np.ndarray | None
    voxel_size_mm: tuple[float, float, float]
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Estimate:
    """What a corrector returns.

    Attributes
    ----------
    log_bias : LogBiasSpline or array
        Natural log of the bias field over the grid of ``Scan.data``. Its additive constant is free: the caller scales
        the field to mean 1 over the mask.
    record : dict
        Facts worth keeping, JSON-serialisable: iterations run, convergence, voxels used.
    brain : boolean array over the grid of ``Scan.data``, or None
        Where the method itself found the brain, if it evens out nothing else: the field is judged there.
    """

    log_bias: LogBiasSpline | np.ndarray
    record: Mapping[str, Any] = field(default_factory=dict)
    brain: np.ndarray | None = None


@dataclass(frozen=True)
class Corrector(ABC):
    """A bias-field estimator. Its dataclass fields are its parameters, described by ``metadata={"help": ...}``.

    Class attributes
    ----------------
    name : the method's name, as users type it
    version : changes whenever the same input would give another field, so that cached results are not reused
    summary : one line for listings
    references : what to cite for it; for a method that no paper describes, the software that it is part of, and never a
        paper of somebody else's
    runs : names of the methods that it runs inside; :func:`biascorr_pydra.methods.inner_corrector` gives these and no
        others, and cached results of this method follow their versions
    title : what running text calls the method, if not by its name
    presets : name -> parameter values; the first is the default
    grid_shape : the grid the corrector works on, in RAS+ order over the image's whole field of view, or None for the
        native grid and axis order
    weights : name of the weights packaged here, or the path of a .safetensors file with its card beside it, or None
    uses_device : whether ``device`` makes a difference; False for methods that run on the CPU only
    uses_weight : whether it takes a weight image
    takes_series : whether the mean of a 4-D series may be what it corrects
    memory_gb : what a process needs for it on the CPU, beside what grows with the image
    bytes_per_voxel : what it needs beside that, for each voxel of the image
    takes_all_cores : whether its libraries take every core that they find, whatever torch was told
    benchmarked : whether ``biascorr bench`` scores it where no method is named
    invents : the strongest field (standard deviation of its log) that it was seen to find where there is none, or None
        if that is not known or much: the gate wants no evidence for a stronger one, only none against it
    reports_progress : whether ``estimate`` takes ``progress``, a callable that is told of each step as it ends
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str]
    references: ClassVar[tuple[Reference, ...]]
    runs: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    grid_shape: ClassVar[tuple[int, int, int] | None] = None
    weights: ClassVar[str | Path | None] = None
    uses_device: ClassVar[bool] = True
    uses_weight: ClassVar[bool] = False
    takes_series: ClassVar[bool] = True
    memory_gb: ClassVar[float] = 0.7
    bytes_per_voxel: ClassVar[float] = 40.0
    takes_all_cores: ClassVar[bool] = False
    benchmarked: ClassVar[bool] = True
    invents: ClassVar[float | None] = None
    reports_progress: ClassVar[bool] = False

    @classmethod
    def from_options(cls, preset: str | None = None, **options: Any) -> Self:
        """Build the corrector from a named preset, then override single parameters.

        Raises
        ------
        InvalidParameterError
            For an unknown preset or parameter, or a value that the method refuses.
        """
        preset = preset or next(iter(cls.presets))
        if preset not in cls.presets:
            raise InvalidParameterError(
                f"method {cls.name!r} has no preset of that name",
                value=repr(preset),
                next_step=f"Choose one of: {', '.join(cls.presets)}; or name the method whose preset it is.",
            )
        known = [f.name for f in fields(cls)]
        for option in options:
            if option not in known:
                raise InvalidParameterError(
                    f"method {cls.name!r} has no parameter of that name",
                    value=repr(option),
                    next_step=f"Its parameters: {', '.join(known) or 'none'}; or name the method whose it is.",
                )
        try:
            return cls(**{**cls.presets[preset], **options})
        except TypeError as error:
            raise InvalidParameterError(
                f"method {cls.name!r} cannot use a value given to it", value=options, next_step=f"({error})"
            ) from error

    @classmethod
    def citation(cls) -> str:
        """Whom to cite for it, in running text, with a DOI where there is one."""
        return "; ".join(reference.with_doi for reference in cls.references)

    def invents_at_most(self) -> float | None:
        """``invents``, or None with other parameters or weights than those it was measured with."""
        return self.invents if self == type(self)() else None

    def parameters(self) -> dict[str, Any]:
        """The parameters in force, by name, as JSON-serialisable values."""
        return asdict(self)

    def finish(self, corrected: np.ndarray, mask: np.ndarray | None, record: Mapping[str, Any]) -> np.ndarray:
        """What the method does to corrected intensities beyond dividing by the field; by default nothing."""
        return corrected

    def estimate_batch(self, scans: Sequence[Scan], *, device: str = "cpu", seed: int = 0) -> list[Estimate]:
        """Estimate several scans at once; one after another where the method has no better way."""
        return [self.estimate(scan, device=device, seed=seed) for scan in scans]

    @abstractmethod
    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Estimate the log bias field of one scan on one device."""
