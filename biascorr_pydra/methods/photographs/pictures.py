"""Photographs to train on: a folder of images read once as grey values, and slices made of them.

A slice is a crop of 256 x 256 samples, its grey values passed through a random curve, often cut out in a random shape
before a dark background, as anatomy is. All randomness comes from a :class:`torch.Generator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from biascorr_pydra.errors import InvalidImageError, InvalidParameterError, UnreadableImageError
from biascorr_pydra.images.field import bspline_basis

__all__ = ["SIZE", "draw_slices", "find_photographs", "noisy", "read_photographs"]

SIZE = 256
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm")
MOST_CLASSES = 6
POWERED, CUT_OUT, RIMMED = 0.3, 0.7, 0.5
MOST_NOISE = 0.03
_SHAPE_POINTS = 8


def find_photographs(folder: str | Path) -> list[Path]:
    """Image files directly in a folder, by name.

    Raises
    ------
    InvalidParameterError
        There is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidParameterError("the photographs are in a folder", file=folder, value="no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InvalidParameterError(
            f"the folder holds photographs ({', '.join(SUFFIXES)})",
            file=folder,
            value="none",
            next_step="Give the folder that holds the image files themselves, or one with train and val folders.",
        )
    return files


def read_photographs(files: Sequence[str | Path]) -> list[torch.Tensor]:
    """Grey values of photographs: uint8 tensors (I, J), each at least 256 x 256.

    Raises
    ------
    UnreadableImageError
        A file is no image.
    InvalidImageError
        An image is smaller than 256 x 256.
    """
    from PIL import Image, UnidentifiedImageError

    photographs = []
    for file in files:
        try:
            with Image.open(file) as img:
                grey = np.array(img.convert("L"))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise UnreadableImageError(
                "a photograph is an image file", file=file, value=str(error), next_step="Remove it, or convert it."
            ) from error
        if min(grey.shape) < SIZE:
            raise InvalidImageError(
                f"a photograph has at least {SIZE} x {SIZE} samples",
                file=file,
                value=f"{grey.shape[1]} x {grey.shape[0]}",
                next_step="Leave it out, or give a larger version.",
            )
        photographs.append(torch.from_numpy(grey))
    return photographs


def draw_slices(
    photographs: Sequence[torch.Tensor], batch: int, generator: torch.Generator, *, plain: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random slices.

    Parameters
    ----------
    photographs : from :func:`read_photographs`
    batch : slices
    plain : only crop and flip, as the papers do

    Returns
    -------
    slices : float tensor (batch, 1, 256, 256), 0 to 1
    inside : float tensor, same shape, 1 where there is something, 0 in the background
    """
    crops = torch.stack([_crop(photographs, generator) for _ in range(batch)])
    if plain:
        return (crops.float() / 255)[:, None], torch.ones(batch, 1, SIZE, SIZE)
    curves = torch.stack([_curve(generator) for _ in range(batch)])
    slices = torch.gather(curves, 1, crops.long().flatten(1)).reshape(crops.shape)
    inside = torch.ones_like(slices)
    cut = torch.rand(batch, generator=generator) < CUT_OUT
    if cut.any():
        depth = _depth(int(cut.sum()), generator)
        inside[cut] = (depth > 0).float()
        slices[cut] = slices[cut] * _rims(depth, generator) * inside[cut]
    return slices.clamp_(0, 1)[:, None], inside[:, None]


def noisy(slices: torch.Tensor, deviation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Magnitude of slices (B, 1, I, J) with Gaussian noise of standard deviation (B, 1, 1, 1)."""
    return (slices + deviation * torch.randn(slices.shape, generator=generator)).abs_()


def _crop(photographs: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    photograph = photographs[int(torch.randint(len(photographs), (), generator=generator))]
    i, j = (int(torch.randint(n - SIZE + 1, (), generator=generator)) for n in photograph.shape)
    crop = photograph[i : i + SIZE, j : j + SIZE]
    turn = int(torch.randint(8, (), generator=generator))
    crop = torch.rot90(crop, turn % 4)
    return crop.flip(0) if turn >= 4 else crop


def _curve(generator: torch.Generator) -> torch.Tensor:
    """256 values, 0 to 1, for the grey values: a power, or a few classes, each of nearly one random intensity."""
    grey = torch.linspace(0, 1, 256)
    kind, power, brightness = torch.rand(3, generator=generator).tolist()
    if kind < POWERED:
        return grey ** (2 ** (2 * power - 1)) * (0.7 + 0.3 * brightness)
    n = int(torch.randint(3, MOST_CLASSES + 1, (), generator=generator))
    edges = torch.rand(n - 1, generator=generator).sort().values
    levels = 0.05 + 0.95 * torch.rand(n, generator=generator)
    width = 0.01 + 0.04 * power
    steps = torch.sigmoid((grey[:, None] - edges) / width)
    curve = levels[0] + (steps * levels.diff()).sum(1)
    # What is left of the photograph's own variation within a class.
    return (curve + (grey - 0.5) * 0.2 * brightness).clamp(0, 1)


def _depth(n: int, generator: torch.Generator) -> torch.Tensor:
    """(n, 256, 256): about how many samples a place lies inside a random ellipse with a wavy outline."""
    along = torch.linspace(-1, 1, SIZE)
    centre = 0.4 * torch.rand(n, 2, 1, generator=generator) - 0.2
    radii = 0.4 + 0.55 * torch.rand(n, 2, 1, generator=generator)
    squares = ((along - centre) / radii) ** 2
    waves = torch.randn(n, _SHAPE_POINTS, _SHAPE_POINTS, generator=generator)
    basis = _shape_basis()
    radius = (squares[:, 0, :, None] + squares[:, 1, None, :]).sqrt() + 0.15 * (basis @ waves @ basis.mT)
    return (1 - radius) * (radii.mean(1, keepdim=True) * SIZE / 2)


def _shape_basis() -> torch.Tensor:
    basis = bspline_basis(np.arange(SIZE), _SHAPE_POINTS, first=0, last=SIZE - 1)
    return torch.as_tensor(basis, dtype=torch.float32)


def _rims(depth: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Factors (n, 256, 256): in half of the slices two bands along the outline, a bright and a dark one, or alike."""
    n = len(depth)
    rimmed = (torch.rand(n, 1, 1, generator=generator) < RIMMED).float()
    factors = torch.ones_like(depth)
    start = torch.zeros(n, 1, 1)
    for low, high in ((0.4, 2.0), (0.05, 1.0)):
        end = start + 3 + 9 * torch.rand(n, 1, 1, generator=generator)
        factor = low + (high - low) * torch.rand(n, 1, 1, generator=generator)
        band = rimmed * ((depth > start) & (depth <= end))
        factors = factors + band * (factor - 1)
        start = end
    return factors
