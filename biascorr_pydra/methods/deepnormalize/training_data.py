"""What DeepNormalize is trained on: patches of the scans of several sites, with tissue segmentations, in BIDS."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biascorr_pydra.bids import Job, assign_sites, find_site_roots, survey
from biascorr_pydra.errors import BiasCorrError, BIDSError, InvalidParameterError, SegmentationError
from biascorr_pydra.images import nifti as images
from biascorr_pydra.images.canonical import to_canonical
from biascorr_pydra.metrics import DSEG_LABELS

from .model import PATCH, Prepared, prepare
from .networks import CLASSES

__all__ = ["Patches", "Scan", "SiteScan", "bias_ramp", "find_scans", "open_scans", "read_scan"]

MOST_CENTRES = 100_000
MARGIN = PATCH // 2  # a patch centred on any voxel of the brain lies inside the array
CLASS_OF_LABEL = np.zeros(4, np.uint8)
for _name, _label in DSEG_LABELS.items():
    CLASS_OF_LABEL[_label] = CLASSES.index(_name)


@dataclass(frozen=True)
class SiteScan:
    """One scan: its files (one for each modality, the first is what the split goes by), segmentation and site."""

    files: tuple[Path, ...]
    dseg: Path
    mask: Path | None
    site: str


@dataclass(frozen=True)
class Scan:
    """One scan in memory: ``prepared``, the class of each voxel (I, J, K), uint8, and its site."""

    prepared: Prepared
    truth: np.ndarray
    site: str


@lru_cache(maxsize=4)
def find_scans(data: str, suffixes: tuple[str, ...], derivatives: str) -> dict[Path, SiteScan]:
    """The scans of a study with segmentations and sites, by the file of the first modality.

    Parameters
    ----------
    data : a BIDS data set with a site column in participants.tsv, or a folder with one data set a site
    suffixes : of the modalities
    derivatives : folder, in each data set, of the derivative data set with dseg images (1 GM, 2 WM, 3 CSF)

    Raises
    ------
    BIDSError
        A scan has no segmentation, no site, or lacks a modality; there are none.
    """
    scans: dict[Path, SiteScan] = {}
    for root in find_site_roots(data):
        jobs, _ = survey(root.path, suffixes=suffixes, derivatives=root.path / derivatives, allow_undescribed=True)
        by_entities = {(job.entities, job.suffix): job for job in jobs}
        firsts = [job for job in jobs if job.suffix == suffixes[0]]
        sited, _ = assign_sites({root: firsts})
        for job, assigned in zip(firsts, sited, strict=True):
            parts = [by_entities.get((job.entities, suffix)) for suffix in suffixes]
            scans[job.source] = _checked(job, parts, suffixes, assigned.site)
    if not scans:
        raise BIDSError(f"the study has {suffixes[0]} images", file=data, value="none")
    return scans


def _checked(job: Job, parts: Sequence[Job | None], suffixes: Sequence[str], site: str | None) -> SiteScan:
    lacking = [suffix for suffix, part in zip(suffixes, parts, strict=True) if part is None]
    if lacking:
        raise BIDSError("a scan has an image of each modality", file=job.source, value=f"no {', '.join(lacking)}")
    if "dseg" not in job.given:
        raise BIDSError(
            "a scan to train on has a tissue segmentation",
            file=job.source,
            value="no dseg",
            next_step="Name the folder that has it with --derivatives; correct_bids.py writes such data sets.",
        )
    if site is None:
        raise BIDSError(
            "a scan to train on has a site",
            file=job.source,
            value="none",
            next_step="Add a column 'site' to participants.tsv, or use one data set a site.",
        )
    files = tuple(part.source for part in parts if part is not None)
    return SiteScan(files, job.given["dseg"], job.given.get("mask"), site)


def read_scan(files_of: SiteScan, *, margin: int = 0) -> Scan:
    """Read a scan; outside the mask, or where there is none the segmentation, it is 0.

    Raises
    ------
    BiasCorrError
        A file cannot be read, or the segmentation holds other labels than 1, 2 and 3 or no voxel.
    """
    first = images.load(files_of.files[0])
    data = [images.inspect(first, name=files_of.files[0])[0]]
    for file in files_of.files[1:]:
        other = images.load(file)
        if not images.same_grid(other, first):
            raise InvalidParameterError(
                "the modalities of a scan are on one grid", file=file, next_step="Resample it to the first."
            )
        data.append(images.inspect(other, name=file)[0])
    labels = np.asarray(images.load(files_of.dseg).dataobj).round().astype(np.int64).reshape(first.shape[:3])
    if labels.min() < 0 or labels.max() > 3 or not labels.any():
        raise SegmentationError(
            "a segmentation has the labels 1 (GM), 2 (WM) and 3 (CSF)",
            file=files_of.dseg,
            value=f"{labels.min()} to {labels.max()}",
        )
    mask = labels > 0 if files_of.mask is None else images.load_mask(files_of.mask, first)[0]
    prepared = prepare(data, first.affine, mask, margin=margin)
    return Scan(prepared, _classes(labels, first.affine, prepared), files_of.site)


def _classes(labels: np.ndarray, affine: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Class of each voxel of the prepared grid: the one with the largest share."""
    shares = []
    first, sizes = prepared.first, prepared.image.shape[1:]
    for label in range(4):
        share = to_canonical((labels == label).astype(np.float32), affine, prepared.grid)
        pads = [(max(0, -a), max(0, a + n - m)) for a, n, m in zip(first, sizes, share.shape, strict=True)]
        part = share[tuple(slice(max(0, a), a + n) for a, n in zip(first, sizes, strict=True))]
        shares.append(np.pad(part, pads, constant_values=float(label == 0)))
    return CLASS_OF_LABEL[np.argmax(shares, axis=0)]


@dataclass(frozen=True)
class _Subject:
    image: torch.Tensor  # (C, I, J, K), float16
    truth: torch.Tensor  # (I, J, K), uint8
    centres: torch.Tensor  # (n, 3), int16: voxels of a tissue
    height: tuple[int, int]  # first sample and extent of the brain along y
    moments: tuple[torch.Tensor, torch.Tensor] | None  # to standardize with: means and deviations, (C, 1, 1, 1)

    def standardized(self, patch: torch.Tensor) -> torch.Tensor:
        if self.moments is None:
            return patch
        mean, deviation = self.moments
        return torch.where(patch != 0, (patch - mean) / deviation, 0.0)


@dataclass(frozen=True)
class Patches:
    """Scans in memory by domain, and how patches are drawn from them.

    Attributes
    ----------
    sites : names of the domains, in the order of the discriminator's classes
    subjects : of each domain
    bias_share : of patches that a linear field degrades
    """

    sites: tuple[str, ...]
    subjects: tuple[tuple[_Subject, ...], ...]
    bias_share: float

    def draw(self, n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """As many patches of each domain as can be, all centred on a voxel of a tissue.

        Returns
        -------
        dict of "real" (n, C, 32, 32, 32); "image", the same with linear fields in some; "truth" (n, 32, 32, 32), the
        class of each voxel; "domain" (n,)
        """
        offset = int(torch.randint(len(self.sites), (), generator=generator))
        domains = [(offset + i) % len(self.sites) for i in range(n)]
        real, image, truth = zip(*[self._one(domain, generator) for domain in domains], strict=True)
        return {
            "real": torch.stack(real),
            "image": torch.stack(image),
            "truth": torch.stack(truth),
            "domain": torch.tensor(domains),
        }

    def _one(self, domain: int, generator: torch.Generator):
        def pick(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        subject = self.subjects[domain][pick(len(self.subjects[domain]))]
        corner = [int(c) - PATCH // 2 for c in subject.centres[pick(len(subject.centres))]]
        window = tuple(slice(c, c + PATCH) for c in corner)
        real, truth = subject.image[(slice(None), *window)].float(), subject.truth[window]
        image = real
        if torch.rand((), generator=generator) < self.bias_share:
            alpha = torch.rand((), generator=generator).item()
            y = torch.arange(corner[1], corner[1] + PATCH) - subject.height[0]
            # Scaled as the whole image would be after the field, whose mean is 1 - alpha / 2.
            image = real * (bias_ramp(y, subject.height[1], alpha) / (1 - alpha / 2))[None, None, :, None]
        flips = [axis for axis in range(3) if torch.rand((), generator=generator) < 0.5]
        order = torch.randperm(3, generator=generator).tolist()
        pair = [subject.standardized(one) for one in (real, image)]
        turned = [one.flip([a + 1 for a in flips]).permute(0, *[a + 1 for a in order]) for one in pair]
        return *turned, truth.flip(flips).permute(order)

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "patches of scans with tissue segmentations",
            "sites": {site: len(subjects) for site, subjects in zip(self.sites, self.subjects, strict=True)},
        }


def bias_ramp(y: torch.Tensor, height: float, alpha: float) -> torch.Tensor:
    """Equation 7: the linear field (y / H) alpha + (1 - alpha), from 1 - alpha to 1, held beyond both ends."""
    return (y / height).clamp(0, 1) * alpha + (1 - alpha)


def open_scans(
    files: Sequence[Path], scans: dict[Path, SiteScan], sites: Sequence[str], *, bias_share: float, z_scores: bool
) -> Patches:
    """Read scans. Those that cannot be used are left out, by name and with a warning.

    Raises
    ------
    BIDSError
        A site has no scan that can be used.
    """
    by_site: dict[str, list[_Subject]] = {site: [] for site in sites}
    for file in files:
        try:
            scan = read_scan(scans[file], margin=MARGIN)
        except BiasCorrError as error:
            warnings.warn(f"{file} is left out: {error}", stacklevel=2)
            continue
        by_site[scan.site].append(_subject(scan, z_scores))
    if empty := [site for site, subjects in by_site.items() if not subjects]:
        counts = Counter(scans[file].site for file in files)
        raise BIDSError("each site has scans to train on", value=f"none of {', '.join(empty)}; {dict(counts)}")
    return Patches(tuple(sites), tuple(tuple(by_site[site]) for site in sites), bias_share)


def _subject(scan: Scan, z_scores: bool) -> _Subject:
    values = scan.prepared.image
    inner = np.zeros(scan.truth.shape, bool)
    inner[(slice(MARGIN, -MARGIN),) * 3] = True
    centres = np.argwhere((scan.truth > 0) & inner)
    centres = np.random.default_rng(0).permutation(centres)[:MOST_CENTRES]
    rows = np.flatnonzero(values.any(axis=(0, 1, 3)))
    moments = None
    if z_scores:
        inside = [channel[channel != 0] for channel in values]
        mean, deviation = (
            torch.tensor([[[[float(f(part))]]] for part in inside], dtype=torch.float32) for f in (np.mean, np.std)
        )
        moments = (mean, deviation)
    return _Subject(
        torch.from_numpy(values).half(),
        torch.from_numpy(scan.truth),
        torch.from_numpy(centres.astype(np.int16)),
        (int(rows[0]), int(rows[-1] - rows[0]) + 1),
        moments,
    )
