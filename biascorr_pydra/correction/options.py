"""How an image is corrected: every option once, with its default, its choices and its help.

The faces (command line, Pydra, Nipype, cohorts) take names, defaults, choices and help from here, or
tests/interfaces/test_options.py holds them against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from types import NoneType
from typing import Any

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.methods import DEFAULT_METHOD
from biascorr_pydra.methods.corrector import Corrector
from biascorr_pydra.methods.spec import NO_FALLBACK, MethodSpec
from biascorr_pydra.resources import DEVICES

__all__ = ["DEFAULTS", "FILE_HELP", "CorrectionOptions", "choices_of", "help_of"]

#: What is read and written, and what the page needs to know, by the names that they have in every face.
FILE_HELP: Mapping[str, str] = {
    "in_file": "the image, .nii or .nii.gz, 3-D",
    "mask_file": "where to estimate the field",
    "weight_file": "how much each voxel counts, for n4 and ants-n4",
    "out_file": "the corrected image, float32",
    "bias_file": "the bias field, mean 1 over the mask or the detected head",
    "record_file": "what was done and found, JSON",
    "rejected_file": "the field that was rejected or negligible, and so not divided out",
    "report_file": "a page that shows the correction: images, field, mask, tissues, metrics; one HTML file",
    "suffix": "the contrast, as BIDS names it (T1w, T2w, FLAIR ...), for the page's tissues; by default the end of the "
    "file's name",
    "uncertainty_file": "standard deviation of the log field over the image and its mirror images, if asked for",
}


def _option(default: Any, help: str, *types: type, choices: tuple[str, ...] = (), allowed: str = "") -> Any:
    metadata = {"help": help, "types": types, "choices": choices, "allowed": allowed}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class CorrectionOptions:
    """How one image is corrected; each field's help says what it does.

    ``METHOD:PRESET`` given as method is taken apart into ``method`` and ``preset``.

    Raises
    ------
    InvalidParameterError
        Naming the option, the value and what is allowed; also for a preset that is given twice, and differently.
        Whether the method exists, and its own parameters, are looked at by :meth:`corrector`.

    Examples
    --------
    >>> CorrectionOptions(method="n4:antspy").preset
    'antspy'
    """

    method: str = _option(
        DEFAULT_METHOD,
        "the correction method, METHOD or METHOD:PRESET, see `biascorr methods`",
        str,
        allowed="the name of a method, as METHOD or METHOD:PRESET",
    )
    preset: str | None = _option(
        None, "a named set of the method's parameters", str, NoneType, allowed="the name of a preset of the method"
    )
    options: Mapping[str, Any] | None = _option(
        None,
        "single parameters of the method, on top of the preset",
        Mapping,
        NoneType,
        allowed="a mapping of parameters' names to values",
    )
    device: str = _option(
        "auto", "where the field is estimated: auto (a GPU if there is one), cpu or cuda", str, choices=DEVICES
    )
    seed: int = _option(0, "for methods that draw random numbers", Integral, allowed="a whole number")
    average_frames: bool = _option(
        False, "the image is a 4-D series: one field, from the mean of its frames", bool, allowed="True or False"
    )
    gate: bool = _option(
        True, "judge the field; one that is negligible or rejected is not divided out", bool, allowed="True or False"
    )
    fallback: str = _option(
        NO_FALLBACK,
        "whose field stands in for a rejected one, or for a method that refuses the image: none, METHOD or "
        "METHOD:PRESET",
        str,
        allowed=f"{NO_FALLBACK!r}, or the name of a method, as METHOD or METHOD:PRESET",
    )
    check_response: bool = _option(
        False,
        "also judge by whether the method sees a known extra field (one estimate more)",
        bool,
        allowed="True or False",
    )
    uncertainty: bool = _option(
        False,
        "also write, and judge by, how far the fields of the mirror images are apart (three estimates more)",
        bool,
        allowed="True or False",
    )
    strict: bool = _option(
        False,
        "an image left as it is, because its field was rejected or negligible, is an error, raised when all is written "
        "(the command ends with 3)",
        bool,
        allowed="True or False",
    )
    metadata: Mapping[str, Any] | None = _option(
        None,
        "what the image's BIDS sidecar says, where signs of an earlier correction are looked for; "
        "by default the JSON beside the image",
        Mapping,
        NoneType,
        allowed="a mapping, as in a BIDS sidecar",
    )

    def __post_init__(self):
        for option in fields(self):
            _check(option.name, getattr(self, option.name), option.metadata)
        spec = MethodSpec.parse(self.method, self.preset)
        object.__setattr__(self, "method", spec.method)
        object.__setattr__(self, "preset", spec.preset)

    def corrector(self) -> Corrector:
        """The method with its preset and parameters.

        Raises
        ------
        UnknownMethodError, InvalidParameterError
        """
        return MethodSpec(self.method, self.preset).corrector(**(self.options or {}))

    def fallback_corrector(self) -> Corrector | None:
        """The method to fall back on, or None.

        Raises
        ------
        UnknownMethodError, InvalidParameterError
        """
        return None if self.fallback == NO_FALLBACK else MethodSpec.parse(self.fallback).corrector()


def _check(name: str, value: Any, about: Mapping[str, Any]) -> None:
    if about["choices"]:
        valid, allowed = value in about["choices"], f"one of {', '.join(about['choices'])}"
    else:
        # True is a whole number to Python; nobody means it by a seed.
        valid = isinstance(value, about["types"]) and (bool in about["types"] or not isinstance(value, bool))
        allowed = about["allowed"]
    if not valid:
        raise InvalidParameterError(f"option {name} is {allowed}", value=repr(value))


def help_of(name: str) -> str:
    """The help of an option, or of a file that is read or written, as half a sentence."""
    return FILE_HELP[name] if name in FILE_HELP else _metadata(name)["help"]


def choices_of(name: str) -> tuple[str, ...]:
    """The values that an option can have; empty where they are not a list."""
    return _metadata(name)["choices"]


def _metadata(name: str) -> Mapping[str, Any]:
    return next(option.metadata for option in fields(CorrectionOptions) if option.name == name)


#: Every option as it is where nothing is chosen.
DEFAULTS: CorrectionOptions = CorrectionOptions()
