"""A small head phantom with a known bias field, in any orientation."""

import os  # noqa: I001
from dataclasses import dataclass

import one_core  # noqa: F401  before numpy
import nibabel as nib
import numpy as np
import pytest

from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline

os.environ["NO_ET"] = "1"  # Pydra's telemetry

# fixtures that several files of tests share
pytest_plugins = ["example_plugin", "judged_cohort", "n4_scans", "slurm_stand_in"]
pytest_plugins += ["small_cohort", "tiny_cohort", "written_cohort"]


@dataclass(frozen=True)
class Phantom:
    """acquired = true x bias, on one grid; tissue labels as in a dseg (1 GM, 2 WM, 3 CSF)."""

    acquired: np.ndarray
    true: np.ndarray
    bias: np.ndarray
    dseg: np.ndarray
    affine: np.ndarray

    @property
    def brain(self) -> np.ndarray:
        return self.dseg > 0

    def image(self, data=None, dtype=np.float32) -> nib.Nifti1Image:
        img = nib.Nifti1Image(np.asarray(self.acquired if data is None else data, dtype), self.affine)
        img.header.set_xyzt_units("mm", "sec")
        img.set_qform(self.affine, 1)
        img.set_sform(self.affine, 2)
        img.header["descrip"] = b"phantom"
        return img


def make_phantom(shape=(48, 56, 44), voxel_mm=4.0, strength=0.15, noise=0.01, seed=0) -> Phantom:
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    wobble = 0.06 * (np.sin(7 * axes[0]) + np.sin(8 * axes[1] + 1) + np.sin(7 * axes[2] + 2))
    radius = np.sqrt(sum((a / s) ** 2 for a, s in zip(axes, (0.85, 0.9, 0.85), strict=True)))
    dseg = np.select([radius + wobble < 0.45, radius + wobble < 0.65, radius < 0.72], [2, 1, 3], 0)
    true = np.choose(dseg, [0.0, 0.6, 1.0, 0.25]) * 1000
    true[(radius > 0.78) & (radius < 0.95)] = 800
    true[(radius >= 0.72) & (radius <= 0.78)] = 60
    log_bias = LogBiasSpline.spanning(rng.normal(size=(5, 5, 5)), shape).on_grid(shape, float)
    bias = np.exp(log_bias * strength / log_bias[dseg > 0].std())
    bias /= bias[dseg > 0].mean()
    clean = np.abs(true * bias + rng.normal(0, noise * 1000, shape))
    affine = np.diag([voxel_mm] * 3 + [1.0])
    affine[:3, 3] = [-voxel_mm * (n - 1) / 2 for n in shape]
    return Phantom(clean.astype(np.float32), true, bias, dseg, affine)


@pytest.fixture
def one_thread():
    """Torch on one thread: small tensors, several test processes, and two networks in a game mind the last digits."""
    import torch  # which not every test needs

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom()


@pytest.fixture
def phantom_file(phantom, tmp_path):
    path = tmp_path / "phantom.nii.gz"
    nifti.save(phantom.image(), path)
    return path


def reorient(img: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """The same image with its voxel axes in another order and direction; 'oblique' turns it in space."""
    if codes == "oblique":
        c, s = np.cos(0.3), np.sin(0.3)
        turn = np.array([[c, -s, 0, 3], [s, c, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1.0]])
        return type(img)(np.asarray(img.dataobj), turn @ img.affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    return img.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(img.affine), wanted))


def make_labels(n: int = 40):
    """A head with a neck: scalp 507, CSF 24, cortex 3 and 42, white matter 2 and 41, ventricle 4."""
    import torch  # which not every test needs

    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n)] * 3, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt()
    labels = torch.zeros((n, n, n), dtype=torch.int16)
    labels[(radius < 0.97) | ((z < 0) & (x**2 + y**2 < 0.2))] = 507
    for limit, left, right in ((0.8, 24, 24), (0.75, 3, 42), (0.55, 2, 41), (0.15, 4, 4)):
        labels[(radius < limit) & (x < 0)] = left
        labels[(radius < limit) & (x >= 0)] = right
    return labels
