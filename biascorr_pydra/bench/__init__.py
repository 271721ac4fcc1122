"""Measure correctors on anyone's data: accuracy, harm, tissue contrast, time and memory, with paired tests.

In process, for one's own scripts::

    from biascorr_pydra.bench import heads_from_labels, leaderboard, pairs_from_images, score_cases, summarize

    rows = score_cases(["n4", "ubc"], heads_from_labels(label_files))   # one row a head, method and mask
    rows = score_cases({"mine": MyCorrector()}, pairs_from_images(files))
    print(leaderboard(summarize(rows)))

On disk, resumable, with plots: :func:`run_bench`, which is ``biascorr bench``.
"""

from importlib import import_module

# Loaded when asked for: the command line lists the command without torch.
_FROM = {
    "case": ("FACTS", "Case", "Planned"),
    "choices": ("BRAINS", "HEADS", "KINDS", "MASKS"),
    "find": ("Sources", "plan_cases"),
    "heads": ("heads_from_labels",),
    "markdown": ("leaderboard", "paired_table"),
    "run": ("Bench", "run_bench"),
    "scans": ("case_from_image", "find_bids", "find_images", "pairs_from_images", "scans"),
    "scoring": ("WORSE_BY", "corrector_of", "score", "score_cases"),
    "summary": ("compare_methods", "summarize"),
}
_MODULES = {name: module for module, names in _FROM.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
