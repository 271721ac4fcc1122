"""Scores of DeepNormalize on whole scans: Dice and mean Hausdorff distance by tissue, JSD between sites, confusion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch

from biascorr_pydra.metrics import UndefinedMetricError, dice, jsd, mean_hausdorff

from . import model
from .networks import CLASSES, DeepNormalize
from .training_data import Scan

__all__ = ["confusion", "score_scans", "tissue_scores"]

BINS = 128
CONFUSION_PATCHES = 64


def score_scans(
    network: DeepNormalize,
    scans: Iterable[Scan],
    sites: Sequence[str],
    *,
    z_scores: bool = False,
    stride: int = 32,
    distances: bool = False,
) -> dict[str, Any]:
    """Scores of a network in evaluation mode.

    Parameters
    ----------
    network : DeepNormalize
    scans : with segmentations
    sites : names of the discriminator's classes; scans of other sites have no part in the confusion matrix
    z_scores : whether the input is standardized, as for the baseline
    stride : of the patches; 32, without overlap, is quick and a little worse than the paper's 8
    distances : also the mean Hausdorff distances, which take longer than the networks

    Returns
    -------
    dict
        "dice" and, if asked for, "mean_hausdorff_mm" (tissue -> mean over the scans, and "mean"); the same "by_site";
        "jsd_before" and "jsd_after" of the sites' distributions of prepared and of normalized intensities in the brain
        (0 to 1 in 128 bins); "confusion" (true class -> share of each answer) of 64 patches a scan; JSON-serialisable.
    """
    device = next(network.parameters()).device.type
    rows: list[dict[str, Any]] = []
    histograms: dict[str, list[list[np.ndarray]]] = {}
    guesses: dict[str, list[np.ndarray]] = {}
    for scan in scans:
        image = scan.prepared.image
        seen = model.standardize(image) if z_scores else image
        normalized, probabilities = model.apply(
            network, seen, stride=stride, device=device, bfloat16=model.has_bfloat16(device)
        )
        inside = (image != 0).any(0)
        rows.append({"site": scan.site, **tissue_scores(probabilities.argmax(0) * inside, scan.truth, distances)})
        before, after = (np.histogram(np.clip(a[0][inside], 0, 1), BINS, (0, 1))[0] for a in (image, normalized))
        histograms.setdefault(scan.site, []).append([before / before.sum(), after / after.sum()])
        if network.generator is not None and scan.site in sites:
            real, fake = confusion(network, image, device)
            guesses.setdefault(scan.site, []).append(real)
            guesses.setdefault("generated", []).append(fake)
    summary: dict[str, Any] = {"what": f"whole held-out scans, stride {stride}", "scans": len(rows), **_means(rows)}
    summary["by_site"] = {site: _means([r for r in rows if r["site"] == site]) for site in sorted(histograms)}
    if len(histograms) > 1:
        means = np.stack([np.mean(histograms[site], 0) for site in sorted(histograms)], 1)
        summary |= {f"jsd_{when}": round(jsd(part), 4) for when, part in zip(("before", "after"), means, strict=True)}
    if guesses:
        names = [*sites, "generated"]
        summary["confusion"] = {
            name: dict(zip(names, cast("list[float]", np.round(np.mean(guesses[name], 0), 3).tolist()), strict=True))
            for name in names
            if name in guesses
        }
    return summary


def tissue_scores(classes: np.ndarray, truth: np.ndarray, distances: bool = True) -> dict[str, dict[str, float | None]]:
    """Dice and mean Hausdorff distance (mm) of each tissue; class numbers (I, J, K) on cubes of 1 mm.

    None where a tissue is in neither or, for the distance, not in both.
    """
    functions = {"dice": dice, **({"mean_hausdorff_mm": _distance} if distances else {})}
    scores: dict[str, dict[str, float | None]] = {key: {} for key in functions}
    for number, name in enumerate(CLASSES):
        if name == "BG":
            continue
        a, b = classes == number, truth == number
        for key, function in functions.items():
            try:
                scores[key][name] = function(a, b)
            except UndefinedMetricError:
                scores[key][name] = None
    return scores


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return mean_hausdorff(a, b, voxel_size_mm=(1, 1, 1))


def _means(rows: list[dict]) -> dict[str, dict[str, float | None]]:
    averages = {}
    for key in [key for key in rows[0] if key != "site"] if rows else []:
        means = {}
        for name in CLASSES[1:]:
            values = [row[key][name] for row in rows if row[key][name] is not None]
            means[name] = round(float(np.mean(values)), 3) if values else None
        stated = [value for value in means.values() if value is not None]
        averages[key] = {**means, "mean": round(float(np.mean(stated)), 3) if stated else None}
    return averages


def confusion(network: DeepNormalize, image: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Shares (K + 1,) of the discriminator's answers to a scan's own patches and to the normalized ones."""
    size = model.PATCH
    padded = np.pad(image, [(0, 0)] + [(size // 2, size // 2)] * 3)
    centres = np.argwhere((image != 0).any(0))
    chosen = np.random.default_rng(0).choice(len(centres), min(CONFUSION_PATCHES, len(centres)), replace=False)
    windows = [tuple(slice(c, c + size) for c in centres[i]) for i in chosen]
    patches = torch.from_numpy(np.stack([padded[(slice(None), *window)] for window in windows])).float().to(device)
    with torch.inference_mode():
        answers = [network.discriminator(p).argmax(1).cpu() for p in (patches, network.normalize(patches))]
    classes = network.discriminator.last.out_features
    real, fake = (np.bincount(answer.numpy(), minlength=classes) / len(answer) for answer in answers)
    return real, fake
