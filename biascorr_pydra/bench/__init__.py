"""Measure correctors on anyone's data: accuracy, harm, tissue contrast, time and memory, with paired tests.

In process, for one's own scripts::

    from biascorr_pydra.bench import heads_from_labels, leaderboard, pairs_from_images, score_cases, summarize

    rows = score_cases(["n4", "ubc"], heads_from_labels(label_files))   # one row a head, method and mask
    rows = score_cases({"mine": MyCorrector()}, pairs_from_images(files))
    print(leaderboard(summarize(rows)))

On disk, resumable, with plots: :func:`run_bench`, which is ``biascorr bench``.
"""

from ._case import FACTS, Case, Planned
from ._find import HEADS, KINDS, Sources
from ._heads import heads_from_labels
from ._markdown import leaderboard, paired_table
from ._run import Bench, run_bench
from ._scans import BRAINS, case_from_image, find_bids, find_images, pairs_from_images, scans
from ._score import MASKS, TISSUE_SCORES, WORSE_BY, corrector_of, score, score_cases
from ._summary import compare_methods, summarize

__all__ = [
    "BRAINS",
    "FACTS",
    "HEADS",
    "KINDS",
    "MASKS",
    "TISSUE_SCORES",
    "WORSE_BY",
    "Bench",
    "Case",
    "Planned",
    "Sources",
    "case_from_image",
    "compare_methods",
    "corrector_of",
    "find_bids",
    "find_images",
    "heads_from_labels",
    "leaderboard",
    "paired_table",
    "pairs_from_images",
    "run_bench",
    "scans",
    "score",
    "score_cases",
    "summarize",
]
