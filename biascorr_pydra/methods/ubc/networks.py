"""Neural networks: ``nn.Module`` classes and nothing else. Tensor axes are (B, 1, I, J, K)."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from biascorr_pydra.images.field import DEGREE, bspline_basis, evaluate_tensor

__all__ = ["UBC"]

STRIDE = 16  # of UBC's four convolutions together
# Values at both ends and halfway to the control points of the one cubic that is the parabola through them: (4, 3).
PARABOLA = np.linalg.inv(
    np.vstack([bspline_basis(np.array([0, 0.5, 1]), 4, first=0, last=1), [1, -3, 3, -1]])  # no third difference
)[:, :3]


class UBC(nn.Module):
    """The unsupervised bias corrector's network: an image to the control points of its inverse bias field.

    Four 3 x 3 x 3 convolutions of 16, 32, 64 and 128 filters with stride 2, each followed by ReLU and batch
    normalization, take 100 samples per axis to 50, 25, 13 and 7 places, 16 samples apart. Their features are
    interpolated linearly to where the control points lie, and held beyond the outermost places: of 7 control points on
    a mesh of 4 spans, 25 samples apart, the outer ones lie beyond the image. The head, a 3 x 3 x 3 convolution there
    and the features' mean over the image, gives one positive control point for each. Its last parameters begin at zero:
    an untrained network gives a field of 1.

    Parameters
    ----------
    size : int
        Samples per axis of the image.
    lattice : int
        Control points per axis, 3 to 11. The mesh has ``lattice - 3`` spans; with 3, one parabola spans the image.
    filters : four ints
    hidden : int
        Filters of the head.

    References
    ----------
    Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024.
    """

    placement: torch.Tensor
    basis: torch.Tensor
    to_spline: torch.Tensor

    def __init__(
        self,
        size: int = 100,
        lattice: int = 7,
        filters: tuple[int, int, int, int] = (16, 32, 64, 128),
        hidden: int = 32,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for n in filters:
            layers += [nn.Conv3d(before, n, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.BatchNorm3d(n)]
            before = n
        self.encoder = nn.Sequential(*layers)
        self.near = nn.Conv3d(before, hidden, 3, padding=1)
        self.far = nn.Linear(before, hidden, bias=False)
        self.head = nn.Conv3d(hidden, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(torch.Tensor, self.head.bias))
        # Kept with the weights: its shape tells for which lattice they are.
        self.register_buffer("placement", _placement(size, lattice))
        basis = bspline_basis(np.arange(size), max(lattice, 4), first=0, last=size - 1)
        self.register_buffer("basis", torch.as_tensor(basis, dtype=torch.float32), persistent=False)
        parabola = torch.from_numpy(PARABOLA).float() if lattice == 3 else torch.eye(lattice)
        self.register_buffer("to_spline", parabola, persistent=False)

    def log_lattice(self, image: torch.Tensor) -> torch.Tensor:
        """Log control points of the inverse field, (B, 1, 7, 7, 7), of images (B, 1, 100, 100, 100) of mean 1.

        A lattice of 3 gives the 4 control points per axis of the cubic that its parabola is.
        """
        features = self.encoder(image)
        everywhere = self.far(features.mean((2, 3, 4)))[..., None, None, None]
        placed = evaluate_tensor(features, [self.placement.to(features.dtype)] * 3)
        values = self.head(functional.leaky_relu(self.near(placed) + everywhere, 0.1))
        return evaluate_tensor(values.float(), [self.to_spline] * 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Log of the inverse bias field, (B, 1, 100, 100, 100): the corrected image is ``image * exp`` of it."""
        return evaluate_tensor(self.log_lattice(image), [self.basis] * 3)


def _placement(size: int, lattice: int) -> torch.Tensor:
    """The encoder's places to the control points by linear interpolation: (control points, places)."""
    places = STRIDE * np.arange(-(-size // STRIDE))
    spans = max(lattice - DEGREE, 1)
    # The control points of a uniform cubic B-spline lie one span beyond the ends of its mesh.
    wanted = np.linspace(0, 1, 3) if lattice == 3 else (np.arange(lattice) - 1) / spans
    rows = [np.interp(wanted * (size - 1), places, row) for row in np.eye(len(places))]
    return torch.from_numpy(np.stack(rows, axis=1)).float()
