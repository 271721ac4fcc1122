"""Did it help, and whose correction was better: judged on tissue that no compared method made."""

from .judgement import (
    ACQUIRED,
    CANNOT_TELL,
    JUDGE_VERSION,
    LEAST_VOXELS,
    RANKED_BY,
    SAME,
    Judgement,
    Pair,
    judge_images,
)

__all__ = [
    "ACQUIRED",
    "CANNOT_TELL",
    "JUDGE_VERSION",
    "LEAST_VOXELS",
    "RANKED_BY",
    "SAME",
    "Judgement",
    "Pair",
    "judge_images",
]
