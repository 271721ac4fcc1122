"""A 4-D series has one field; levels are reported as they end; time is bounded."""

import numpy as np
import pytest
from conftest import make_phantom

from biascorr_pydra import correct_file, correct_image
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images import nifti


def test_one_field_for_all_frames_of_a_series(tmp_path, phantom):
    series = np.stack([phantom.acquired * k for k in (0.5, 1.0, 1.5)], axis=-1)
    series[3, 3, 3, 1] = np.nan
    nifti.save(phantom.image(series), tmp_path / "series.nii.gz")
    chosen = {"bias_file": tmp_path / "bias.nii.gz", "average_frames": True}
    with pytest.raises(InvalidParameterError, match=r"not been tried on the mean of a series.*Use method n4"):
        correct_file(tmp_path / "series.nii.gz", tmp_path / "out.nii.gz", method="deepem", **chosen)
    with pytest.raises(InvalidParameterError, match="'deepem' has not been tried"):
        correct_file(tmp_path / "series.nii.gz", tmp_path / "out.nii.gz", method="n4", fallback="deepem", **chosen)
    record = correct_file(tmp_path / "series.nii.gz", tmp_path / "out.nii.gz", method="n4", **chosen)
    bias = nifti.load(tmp_path / "bias.nii.gz").get_fdata()
    np.testing.assert_allclose(bias, correct_image(phantom.image(), method="n4").bias.get_fdata(), rtol=1e-3)
    out = nifti.load(tmp_path / "out.nii.gz").get_fdata()
    np.testing.assert_allclose(out[..., 2], series[..., 2] / bias, rtol=1e-4, atol=1e-3)
    assert out[3, 3, 3, 1] == 0 and out.shape == series.shape
    assert any("mean of 3 frames" in warning for warning in record.warnings)


@pytest.mark.parametrize("fallback", ["none", "n4:antspy"])
def test_a_series_that_is_passed_on_as_it_is_was_not_divided_by_anything(fallback):
    flat = make_phantom(strength=1e-9)
    series = flat.image(np.stack([flat.acquired, 2 * flat.acquired], axis=-1))
    result = correct_image(series, method="n4", average_frames=True, fallback=fallback)
    assert result.correction.gate["applied"] == "none"
    np.testing.assert_array_equal(result.corrected.get_fdata(), series.get_fdata())
    warnings = result.correction.warnings
    assert any("passed on as it is" in warning for warning in warnings)
    assert not any("divided out of each" in warning for warning in warnings), warnings


def test_levels_are_told_as_they_end_and_time_is_bounded(phantom):
    levels = []

    def tell(scan, level, facts):
        levels.append((level, facts.iterations))

    result = correct_image(phantom.image(), method="n4", progress=tell)
    assert [level for level, _ in levels] == [0, 1, 2, 3]
    assert [n for _, n in levels] == [level["iterations"] for level in result.correction.estimate["levels"]]
    stopped = correct_image(phantom.image(), method="n4", options={"max_seconds": 1e-6, "tolerance": 0.0})
    assert stopped.correction.estimate["stopped_by_time"] and not stopped.correction.estimate["converged"]
