"""What the judge is given of one correction."""

import nibabel as nib
import numpy as np

from biascorr_pydra.judge import ACQUIRED, Judgement
from biascorr_pydra.single import judging


def test_the_judge_sees_what_was_acquired_also_where_a_method_rescales(tmp_path, monkeypatch):
    acquired = np.arange(1, 28, dtype=np.float32).reshape(3, 3, 3)
    acquired[0, 0] = np.nan, np.inf, -np.inf
    bias = np.full((3, 3, 3), 1.25, np.float32)
    corrected = np.where(np.isfinite(acquired), 3 * acquired / bias - 7, 0).astype(np.float32)  # as n4:ants does
    mask = np.ones((3, 3, 3), np.uint8)
    files = {}
    for kind, data in {"acquired": acquired, "corrected": corrected, "bias": bias, "mask": mask}.items():
        files[kind] = tmp_path / f"{kind}.nii"
        nib.save(nib.Nifti1Image(data, np.eye(4)), files[kind])
    seen = {}

    def look(images, mask, voxel_size_mm, *, suffix):
        seen.update(images)
        return Judgement("only looked at")

    monkeypatch.setattr(judging, "judge_images", look)
    judging.judge_one(files, "n4", {"applied": "n4", "verdict": "accepted"}, suffix="T1w")
    expected = np.arange(1, 28, dtype=np.float32).reshape(3, 3, 3)
    expected[0, 0] = 0
    np.testing.assert_array_equal(seen[ACQUIRED], expected)
    np.testing.assert_array_equal(seen["n4"], corrected)
