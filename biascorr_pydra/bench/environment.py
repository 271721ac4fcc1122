"""Where a benchmark was run: machine, software, threads."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from biascorr_pydra.correction.record import software_versions

__all__ = ["environment", "set_threads"]


def environment(device: str) -> dict[str, Any]:
    """Machine, software versions and threads, JSON-serialisable."""
    import torch

    return {
        "cpu": _cpu(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "system": platform.platform(),
        "python": platform.python_version(),
        "software": {**software_versions(), "scipy": version("scipy"), "pandas": version("pandas")},
    }


def _cpu() -> str:
    try:
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    return model[1] if model else platform.processor() or platform.machine()


def set_threads(n: int) -> None:
    """Let torch, and ITK if it has not been loaded yet, use so many threads."""
    import torch

    torch.set_num_threads(n)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(n)
