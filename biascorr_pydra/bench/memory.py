"""Peak memory of a piece of work in this process, where the system tells (Linux)."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

__all__ = ["PeakMemory"]

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


class PeakMemory:
    """How far the resident memory of this process rises above its level at the start, in MiB.

    The kernel's high-water mark is set back at the start, so that every measurement has its own. What is counted is
    what the work adds: arrays that it allocates and, the first time, the libraries that it loads; not the interpreter,
    nor the image that was already there. ``mib`` is None where the system does not let the mark be set back.
    """

    def __enter__(self) -> PeakMemory:
        self.mib: float | None = None
        self._before = None
        try:
            _give_back_freed()
            CLEAR.write_text(RESET_PEAK)
            self._before = _read("VmRSS")
        except OSError:
            pass  # another system, or a container without it: mib stays None
        return self

    def __exit__(self, *exception) -> None:
        if self._before is not None:
            self.mib = max(0.0, _read("VmHWM") - self._before)


def _read(name: str) -> float:
    line = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if line is None:
        raise OSError(f"{STATUS} has no {name}")
    return int(line[1]) / 1024


def _give_back_freed() -> None:
    """Freed memory that the C library keeps would hide what comes to be used of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
