"""Affine registration of the template's brain to a scan: a program of its own, run by the module `brain` beside it.

    python -P _register.py FOLDER

reads FOLDER/input.npz and writes FOLDER/affine.npy. ITK fixes its number of threads when a process first uses it, and
with more than one, sums in another order give another mask each time. So this process has one thread to itself, and the
rest of the package keeps its own.
"""

import sys
from pathlib import Path

import ants
import ants.config
import numpy as np

RIGID = {"aff_iterations": (100, 50), "aff_shrink_factors": (4, 3), "aff_smoothing_sigmas": (3, 2)}
AFFINE = {"aff_iterations": (100, 50), "aff_shrink_factors": (2, 2), "aff_smoothing_sigmas": (1, 0)}


def main(folder: Path) -> None:
    """Register the scan of ``folder/input.npz``: rigidly from each start, then affinely from the best of them."""
    ants.config._random_seed = 1  # antspyx samples voxels at random, and takes a seed from nowhere else
    given = np.load(folder / "input.npz")
    fixed = to_ants(given["labels"], given["template_affine"])
    moving = to_ants(given["scan"], given["scan_affine"])
    near = given["near"]
    common = {
        "fixed": fixed,
        "moving": moving,
        "mask": to_ants(near, given["template_affine"]),
        "mask_all_stages": True,
        "aff_sampling": 32,
        "aff_random_sampling_rate": 0.3,
    }
    rigid = []
    for k, start in enumerate(given["starts"]):
        file = str(folder / f"start{k}.mat")
        place = {"dimension": 3, "matrix": start[:3, :3], "translation": tuple(start[:3, 3])}
        ants.write_transform(ants.create_ants_transform("AffineTransform", **place), file)
        transforms = register(common, "Rigid", [file], folder / f"rigid{k}", RIGID)
        aligned = ants.apply_transforms(fixed=fixed, moving=moving, transformlist=transforms).numpy()
        rigid.append((mutual_information(given["labels"][near], aligned[near]), transforms))
    best = max(rigid, key=lambda pair: pair[0])[1]
    (transform,) = register(common, "Affine", best, folder / "affine", AFFINE)
    np.save(folder / "affine.npy", matrix_of(ants.read_transform(transform)))


def register(common: dict, kind: str, start: list[str], prefix: Path, levels: dict) -> list[str]:
    """The files of the transform that ANTs finds from ``start``."""
    return ants.registration(
        type_of_transform=kind, initial_transform=start, outprefix=str(prefix), **common, **levels
    )["fwdtransforms"]


def to_ants(array: np.ndarray, affine: np.ndarray):
    """An ANTs image whose world is the RAS+ world of an affine with orthogonal axes."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(array, np.float32),
        origin=tuple(affine[:3, 3]),
        spacing=tuple(sizes),
        direction=affine[:3, :3] / sizes,
    )


def matrix_of(transform) -> np.ndarray:
    """The 4 x 4 matrix from template to scan coordinates of an ITK affine transform."""
    parameters, center = np.asarray(transform.parameters), np.asarray(transform.fixed_parameters)
    matrix = np.eye(4)
    matrix[:3, :3] = parameters[:9].reshape(3, 3)
    matrix[:3, 3] = parameters[9:] + center - matrix[:3, :3] @ center
    return matrix


def mutual_information(a: np.ndarray, b: np.ndarray, bins: int = 32) -> float:
    """Mutual information of two samples in nats, from the joint histogram between 0.5th and 99.5th percentiles."""
    a, b = (np.clip(x, *np.percentile(x, (0.5, 99.5))) for x in (a, b))
    joint = np.histogram2d(a, b, bins=bins)[0] / a.size
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
