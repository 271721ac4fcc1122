"""The errors of biascorr_pydra: each names the rule, the file, the value received and the next step.

Every leaf is also the builtin error a caller would expect (``ValueError``, ``OSError`` ...), so that code
written without knowledge of this package can still catch it.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

__all__ = [
    "BIDSError",
    "BiasCorrError",
    "BrokenMethodError",
    "GridMismatchError",
    "InvalidImageError",
    "InvalidMaskError",
    "InvalidParameterError",
    "MissingDependencyError",
    "OutputError",
    "OutputExistsError",
    "RejectedFieldError",
    "ResourceError",
    "RunLockedError",
    "SchedulerError",
    "SegmentationError",
    "TrainingError",
    "UnknownMethodError",
    "UnreadableImageError",
    "WeightsError",
]


class BiasCorrError(Exception):
    """Base of all errors raised on purpose by biascorr_pydra.

    Parameters
    ----------
    rule : str
        What was expected, as a sentence.
    file : path, optional
        The file concerned.
    value : any, optional
        The value received.
    next_step : str, optional
        What the user can do about it.
    """

    def __init__(
        self,
        rule: str,
        *,
        file: str | PathLike | None = None,
        value: Any = None,
        next_step: str | None = None,
    ):
        self.rule, self.file, self.value, self.next_step = rule, file, value, next_step
        parts = [f"{file}: {rule}" if file is not None else rule]
        if value is not None:
            parts.append(f"Got: {value}.")
        if next_step:
            parts.append(next_step)
        self.message = " ".join(part if part.endswith((".", "!", "?")) else part + "." for part in parts)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def about(self, file: str | PathLike) -> BiasCorrError:
        """The same error; one that names no file names this one."""
        return self if self.file is not None else _rebuild(type(self), self.rule, file, self.value, self.next_step)

    def __reduce__(self):
        # Keyword-only arguments do not survive the default pickling between worker processes.
        return _rebuild, (type(self), self.rule, self.file, self.value, self.next_step)


def _rebuild(cls, rule, file, value, next_step):
    return cls(rule, file=file, value=value, next_step=next_step)


class UnreadableImageError(BiasCorrError, OSError):
    """The file is missing, truncated, or not a NIfTI image."""


class InvalidImageError(BiasCorrError, ValueError):
    """The image was read, but its shape or its values cannot be corrected."""


class GridMismatchError(BiasCorrError, ValueError):
    """Two images that must share a grid do not."""


class InvalidMaskError(BiasCorrError, ValueError):
    """The mask is empty or otherwise unusable."""


class InvalidParameterError(BiasCorrError, ValueError):
    """An option has a value outside its range, or is not an option of the method."""


class MissingDependencyError(BiasCorrError, ImportError):
    """An optional package is needed that is not installed; the message names the extra that brings it."""


class UnknownMethodError(BiasCorrError, LookupError):
    """No method of that name exists."""


class BrokenMethodError(UnknownMethodError):
    """A method is registered, but cannot be loaded or does not keep the contract of methods."""


class WeightsError(BiasCorrError, ValueError):
    """Weights are missing, damaged, or do not fit the network."""


class TrainingError(BiasCorrError, RuntimeError):
    """A training run cannot go on."""


class RejectedFieldError(BiasCorrError, ValueError):
    """An image was left as it is, its field being rejected or negligible, and that was to be an error."""


class OutputError(BiasCorrError, OSError):
    """The output cannot be written."""


class OutputExistsError(BiasCorrError, FileExistsError):
    """The output exists already and overwriting was not asked for."""


class SegmentationError(BiasCorrError, ValueError):
    """Brain extraction or tissue segmentation gave no usable result."""


class BIDSError(BiasCorrError, ValueError):
    """The BIDS data set, or the selection made from it, cannot be processed."""


class ResourceError(BiasCorrError, ValueError):
    """A task asks for more than the worker it is sent to can ever give."""


class RunLockedError(BiasCorrError, BlockingIOError):
    """Another run is at work on the same folder."""


class SchedulerError(BiasCorrError, RuntimeError):
    """A cluster's batch system is missing, does not answer, refuses a job, or has ended one."""
