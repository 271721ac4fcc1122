"""The bias field that makes each class of voxels equally bright: class means and B-spline in one least-squares problem.

Minimized over control points c and class means m, with the B-spline field b(c), are the weighted squares of

    log image - m[class] - b(c)

over voxels known to be purely of one class, and a little of the squared second differences of c. Weights are robust
(Geman and McClure) and inverse to the variance of each class; both follow from the residuals, in a few rounds.

Splines extrapolate wildly. Where there is no such voxel, another field may guide the fit, by its shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from biascorr_pydra.images.field import bspline_basis, evaluate_tensor

from .pure_tissue import box_of

__all__ = ["Guide", "Solution", "fit_classes", "guide", "mesh_over", "stiffer"]

SCALE = 2.5  # residuals of so many standard deviations count a quarter
LEAST_SD, FIRST_SD = 0.015, 0.15
AS_ROUGH = (1 / 30, 10 / 3)  # least and largest factor of smoothness, for rough and smooth fields
GUIDE_STEP = 2  # voxels; both fields are smooth
TINY = 1e-9  # pins the constant, which class means and field share


@dataclass(frozen=True)
class Solution:
    """Control points (n, n, n) of the log field, of mean 0 over the voxels used; class means; residual sd per class."""

    control_points: torch.Tensor
    means: torch.Tensor
    deviations: torch.Tensor


@dataclass(frozen=True)
class Guide:
    """Normal equations of control points that follow another log field but for its constant; see :func:`guide`."""

    matrix: torch.Tensor
    right: torch.Tensor


@dataclass(frozen=True)
class _Mesh:
    bases: list[torch.Tensor]
    pairs: list[torch.Tensor]
    roughness: torch.Tensor

    def within(self, box: tuple[slice, ...]) -> _Mesh:
        """The same mesh, over a part of the grid."""
        bases, pairs = (
            [matrix[part] for matrix, part in zip(all_of, box, strict=True)] for all_of in (self.bases, self.pairs)
        )
        return _Mesh(bases, pairs, self.roughness)

    def roughness_of(self, control_points: torch.Tensor) -> float:
        """Sum of the squared second differences."""
        return float(control_points.flatten() @ self.roughness @ control_points.flatten())

    def moments(self, values: torch.Tensor) -> torch.Tensor:
        """Integral of a volume with each basis function, flat."""
        return _contract(values, self.bases).flatten()

    def gram(self, weight: torch.Tensor) -> torch.Tensor:
        n = [basis.shape[1] for basis in self.bases]
        product = _contract(weight, self.pairs).view(n[0], n[0], n[1], n[1], n[2], n[2])
        count = n[0] * n[1] * n[2]
        return product.permute(0, 2, 4, 1, 3, 5).reshape(count, count)


@dataclass(frozen=True)
class _Voxels:
    """What is used: flat places in a volume of ``shape``, their classes from 0, and which of them are in each class."""

    shape: torch.Size
    places: torch.Tensor
    label: torch.Tensor
    members: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, classes: torch.Tensor) -> _Voxels:
        places = classes.flatten().nonzero().flatten()
        _, label = torch.unique(classes.flatten()[places], return_inverse=True)
        members = label.argsort(stable=True).split(torch.bincount(label).tolist())
        return cls(classes.shape, places, label, members)

    def medians(self, values: torch.Tensor) -> torch.Tensor:
        """Of each class."""
        return torch.stack([values[of].median() for of in self.members])

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Over each class."""
        return torch.bincount(self.label, values)


def _contract(volume: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    for matrix in matrices:
        volume = torch.tensordot(volume, matrix, dims=([0], [0]))
    return volume


@lru_cache(maxsize=4)
def mesh_over(shape: tuple[int, int, int], points: int, device: str) -> _Mesh:
    """The spline's basis over a grid, and what the fit needs of it."""
    bases = [torch.as_tensor(bspline_basis(np.arange(n), points, first=0, last=n - 1)).to(device) for n in shape]
    pairs = [torch.einsum("ai,aj->aij", basis, basis).flatten(1) for basis in bases]
    one = torch.eye(points, dtype=torch.float64)
    second = torch.diff(one, n=2, dim=0)
    rough = second.T @ second
    kron = lambda x, y, z: torch.kron(torch.kron(x, y), z)  # noqa: E731
    roughness = kron(rough, one, one) + kron(one, rough, one) + kron(one, one, rough)
    return _Mesh(bases, pairs, roughness.to(device))


def guide(log_field: torch.Tensor, where: torch.Tensor, *, points: int, weight: float) -> Guide:
    """What is to be followed outside the voxels that are fitted.

    Parameters
    ----------
    log_field : float tensor, shape (I, J, K)
    where : boolean tensor, same shape
    points : control points per axis, over the whole grid
    weight : float
        Of all places together, where all voxels that are fitted weigh 1.
    """
    shape = tuple(log_field.shape)
    every = tuple(slice(None, None, GUIDE_STEP) for _ in shape)
    whole = mesh_over(shape, points, str(log_field.device))
    mesh = whole.within(every)
    log_field, share = log_field[every].double(), where[every].double()
    share = weight * share / share.sum().clamp(min=1)
    sums = mesh.moments(share)  # of the free constant, which takes the means out
    total = share.sum().clamp(min=TINY)
    matrix = mesh.gram(share) - torch.outer(sums, sums) / total
    return Guide(matrix, mesh.moments(share * log_field) - sums * (share * log_field).sum() / total)


def fit_classes(
    log_image: torch.Tensor,
    classes: torch.Tensor,
    weight: torch.Tensor,
    *,
    points: int,
    smoothness: float,
    usual: float | None = None,
    start: torch.Tensor | None = None,
    rounds: int = 5,
    guided: Guide | None = None,
) -> Solution:
    """Fit field and class means.

    Parameters
    ----------
    log_image : float tensor, shape (I, J, K)
    classes : integer tensor, same shape
        0 where a voxel is not used, else its class, from 1.
    weight : float tensor, same shape, 0 or more
    points : control points per axis, over the whole grid
    smoothness : float
        Weight of the squared second differences, where all voxels together weigh 1.
    usual : float
        How large their sum usually is. If given, ``smoothness`` is changed after the first round by as much as the
        field found with it is smoother, or rougher, than that, within ``AS_ROUGH``.
    start : float tensor, same shape
        A log field to tell outliers by at first; without one, all count alike in the first round.
    rounds : times that robust weights and variances are found anew
    guided : what to follow where there is no voxel to fit
    """
    shape = tuple(log_image.shape)
    box = box_of(classes > 0)
    log_image, classes, weight = log_image[box], classes[box], weight[box]
    used = classes > 0
    voxels = _Voxels.of(classes)
    mesh = mesh_over(shape, points, str(log_image.device)).within(box)
    values = log_image[used].double()
    given = weight[used].double()
    field = torch.zeros_like(values) if start is None else start[box][used].double()
    means = voxels.medians(values - field)
    deviations = torch.full_like(means, FIRST_SD)
    robust = given
    for step in range(rounds):
        if step or start is not None:
            residual = (values - field - means[voxels.label]).abs()
            deviations = (1.4826 * voxels.medians(residual)).clamp(min=LEAST_SD)
            robust = given / (1 + (residual / (SCALE * deviations[voxels.label])) ** 2) ** 2
        trusted = robust / deviations[voxels.label] ** 2
        control_points, means = _solve(mesh, voxels, values, trusted, smoothness, guided)
        if step == 0 and usual is not None:
            smoothness *= stiffer(mesh.roughness_of(control_points), usual)
        on_grid = evaluate_tensor(control_points, mesh.bases)
        shift = on_grid[used].mean()
        control_points, field, means = control_points - shift, on_grid[used] - shift, means + shift
    return Solution(control_points, means, deviations)


def stiffer(roughness: float, usual: float) -> float:
    """By how much smoothness is to grow: as in empirical Bayes, by how small what it punishes turned out to be."""
    least, most = AS_ROUGH
    return min(max(usual / max(roughness, TINY), least), most)


def _solve(
    mesh: _Mesh, voxels: _Voxels, values, weight, smoothness: float, guided: Guide | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal equations; the class means are eliminated by their Schur complement."""
    weight = weight / weight.sum()
    volume = torch.zeros(voxels.shape.numel(), dtype=torch.float64, device=weight.device)

    def moments(of: torch.Tensor | slice, part: torch.Tensor) -> torch.Tensor:
        volume.zero_()[voxels.places[of]] = part
        return mesh.moments(volume.view(voxels.shape))

    cross = torch.stack([moments(of, weight[of]) for of in voxels.members], 1)
    own, right = voxels.sums(weight), voxels.sums(weight * values)
    everything = moments(slice(None), weight * values)
    volume[voxels.places] = weight
    matrix = mesh.gram(volume.view(voxels.shape)) + smoothness * mesh.roughness
    matrix.diagonal().add_(TINY)
    if guided is not None:
        matrix, everything = matrix + guided.matrix, everything + guided.right
    solved = torch.linalg.solve(matrix, torch.cat([everything[:, None], cross], 1))
    schur = torch.diag(own * (1 + 1e-6)) - cross.T @ solved[:, 1:]
    means = torch.linalg.solve(schur, right - cross.T @ solved[:, 0])
    points = mesh.bases[0].shape[1]
    return (solved[:, 0] - solved[:, 1:] @ means).view(points, points, points), means
