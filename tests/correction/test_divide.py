"""The one division, by hand."""

import numpy as np
import pytest

from biascorr_pydra.correction.divide import divide

DATA = np.array([[[8, -6], [np.nan, np.inf]]], np.float32)
BIAS = np.array([[[2, 0.5], [4, 4]]], np.float32)


@pytest.mark.parametrize(("keep", "odd"), [(False, (0, 0)), (True, (np.nan, np.inf))])
def test_an_image_is_divided_voxel_by_voxel(keep, odd):
    corrected = divide(DATA, BIAS, keep_nonfinite=keep)
    np.testing.assert_array_equal(corrected, np.array([[[4, -12], odd]], np.float32))
    assert corrected.dtype == np.float32 and np.isnan(DATA[0, 1, 0]), "the image itself is left alone"


def test_every_frame_of_a_series_is_divided_by_the_one_field():
    series = np.stack([DATA, 10 * DATA, -DATA], axis=-1)
    expected = np.array([[[4, -12], [0, 0]]], np.float32)
    np.testing.assert_array_equal(divide(series, BIAS), np.stack([expected, 10 * expected, -expected], axis=-1))
    np.testing.assert_array_equal(divide(series[..., None], BIAS)[..., 0], divide(series, BIAS))
