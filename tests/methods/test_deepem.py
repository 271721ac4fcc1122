"""deepem: its networks, and the corrector on heads with a known field."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from biascorr_pydra import weights
from biascorr_pydra.bench import Sources
from biascorr_pydra.bench.case import Case
from biascorr_pydra.bench.find import plan_cases
from biascorr_pydra.bench.scoring import score
from biascorr_pydra.correction.cache import EstimateCache, key_of
from biascorr_pydra.correction.estimate import estimate_in_full, scan_on_grid
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError, WeightsError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.canonical import uncrop
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.deepem.networks import PureVoxels, TissueNetworks, TissuePrior
from biascorr_pydra.single import correct_file

EXAMPLES = Path(__file__).parents[2] / "bids_examples"


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_prior_does_not_see_the_scale():
    image = torch.rand((1, 16, 16, 16), generator=torch.Generator().manual_seed(0)) + 0.1
    features = TissuePrior.features(image)
    assert features.shape == (1, 5, 8, 8, 8)
    torch.testing.assert_close(TissuePrior.features(image * 1234.5), features, rtol=1e-4, atol=1e-4)
    # Mean and least step are differences of logs: a factor that is smooth changes them little, a flat image has none.
    flat = TissuePrior.features(torch.full((1, 16, 16, 16), 7.0))
    assert flat[:, 2:].abs().max() < 1e-3


def test_both_networks_answer_on_their_grids():
    networks = TissueNetworks().eval()
    with torch.inference_mode():
        assert networks.prior(torch.zeros(1, 5, 16, 16, 24)).shape == (1, 9, 16, 16, 24)
        x = torch.rand((1, 20, 32, 32, 32), generator=torch.Generator().manual_seed(0))
        whole = networks.pure(x)
        part = networks.pure(x[:, :, :, 8:])
    # What lies further away than it looks does not matter: the corrector crops to the brain with such a margin.
    torch.testing.assert_close(part[:, :, :, 8:], whole[:, :, :, 16:], rtol=1e-4, atol=1e-5)
    assert isinstance(networks.pure, PureVoxels)


def test_folded_networks_say_the_same():
    torch.manual_seed(0)
    networks = TissueNetworks().train()
    x = torch.rand(1, 20, 16, 16, 16)
    for _ in range(3):  # batch normalization with statistics of its own
        networks.pure(x)
        networks.prior(x[:, :5])
    networks.eval()
    folded = networks.folded()
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    with torch.inference_mode():
        torch.testing.assert_close(folded.pure(x), networks.pure(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(folded.prior(x[:, :5]), networks.prior(x[:, :5]), rtol=1e-4, atol=1e-4)


@cache
def phantom_case(name="sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"):
    """A head of the example data set with its true field and brain; not to be written to."""
    sources = Sources(data=[EXAMPLES / "phantom"], derivatives=[EXAMPLES / "phantom_truth"])
    (planned,) = [p for p in plan_cases(sources) if name.startswith(p.facts["scan"])]
    return planned.make()


@cache
def after_one_round():
    """Corrector, scan on its grid without a mask, and what it finds in one round, on one thread."""
    case = phantom_case()
    corrector = get_corrector("deepem").from_options(rounds=1)
    scan = scan_on_grid(corrector, case.affine, case.scan(False))
    return corrector, scan, corrector.estimate(scan)


@pytest.mark.parametrize("suffix", ["T1w", "T2w"])
def test_a_known_field_is_found_without_a_mask(suffix):
    case = phantom_case(f"sub-01/ses-1/anat/sub-01_ses-1_{suffix}.nii.gz")
    row = score(get_corrector("deepem").from_options(), case)
    assert row["residual_cov"] < 0.35 * row["before"]
    assert row["slope"] == pytest.approx(1, abs=0.1)


def test_a_head_without_a_field_is_nearly_left_alone():
    case = phantom_case()
    clean = Case(**{**vars(case), "data": case.data / np.exp(case.log_bias), "log_bias": np.zeros_like(case.log_bias)})
    assert score(get_corrector("deepem").from_options(), clean)["residual_cov"] < 0.01


def test_the_scale_and_the_number_of_threads_make_no_difference():
    corrector, scan, estimate = after_one_round()
    first = estimate.log_bias
    torch.set_num_threads(2)
    assert np.array_equal(corrector.estimate(scan).log_bias.control_points, first.control_points)
    assert torch.get_num_threads() == 2  # as it was
    scaled = corrector.estimate(replace(scan, data=scan.data * np.float32(317.0))).log_bias
    fields = [spline.on_grid(scan.data.shape)[scan.data > scan.data.mean()] for spline in (first, scaled)]
    assert np.std(fields[0] - fields[1]) < 2e-3 < np.std(fields[0])  # one voxel or other changes its class


def test_what_is_given_as_the_brain_is_the_brain():
    case = phantom_case()
    corrector = get_corrector("deepem").from_options(rounds=1)
    scan = scan_on_grid(corrector, case.affine, case.scan(True))
    record = corrector.estimate(scan).record
    # The head, which fills the networks' grid, is cut out of the image before.
    assert scan.mask.mean() < record["brain_share"] < 2 * scan.mask.mean()
    smaller = replace(scan, mask=ndimage.binary_erosion(scan.mask, iterations=8))
    assert corrector.estimate(smaller).record["brain_share"] < 0.8 * record["brain_share"]


def test_the_brain_that_was_found_comes_with_the_field():
    case = phantom_case()
    corrector, on_grid, in_full = after_one_round()
    with EstimateCache() as cache:
        cache.put(key_of(corrector, on_grid, "cpu", 0), in_full)
        log_bias, estimate = estimate_in_full(corrector, case.affine, case.scan(False), device="cpu", seed=0)
    assert estimate.brain.shape == log_bias.shape == case.data.shape
    assert 2 * (estimate.brain & case.brain).sum() > 0.9 * (estimate.brain.sum() + case.brain.sum())


def test_a_box_is_put_back_where_it_was():
    rng = np.random.default_rng(0)
    whole = ndimage.gaussian_filter(rng.normal(size=(20, 24, 22)), 3) > 0
    first, last = (3.0, 0.0, 5.0), (16.0, 23.0, 19.0)
    part = whole[3:17, :, 5:20]
    uncropped = uncrop(part, first, last, whole.shape)
    assert np.array_equal(uncropped[3:17, :, 5:20], part) and uncropped.sum() == part.sum()


def test_noise_is_refused():
    data = np.abs(np.random.default_rng(0).normal(size=(128, 128, 128))).astype(np.float32)
    scan = Scan(data, np.ones(data.shape, bool), None, (2.0, 2.0, 2.0))
    with pytest.raises(InvalidImageError, match=r"found.*wanted.*use method n4"):
        get_corrector("deepem").from_options().estimate(scan)


def test_a_refusal_names_the_file(tmp_path):
    data = np.abs(np.random.default_rng(0).normal(size=(40, 40, 40))).astype(np.float32)
    file = tmp_path / "noise.nii.gz"
    nifti.save(nib.Nifti1Image(data, np.diag([4.0, 4, 4, 1])), file)
    with pytest.raises(InvalidImageError, match=r"noise\.nii\.gz: .*use method n4"):
        correct_file(file, tmp_path / "out.nii.gz", method="deepem")
    assert not (tmp_path / "out.nii.gz").exists()


def test_an_empty_image_is_refused():
    scan = Scan(np.zeros((128, 128, 128), np.float32), np.ones((128, 128, 128), bool), None, (2.0, 2.0, 2.0))
    with pytest.raises(InvalidImageError, match="positive voxels"):
        get_corrector("deepem").from_options().estimate(scan)


@pytest.mark.parametrize(
    "options", [{"points": 3}, {"points": 13}, {"points": 8.0}, {"rounds": 0}, {"smoothness": -1}, {"sure": 1.0}]
)
def test_parameters_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(InvalidParameterError, match=name):
        get_corrector("deepem").from_options(**options)


def test_weights_of_another_method_are_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    weights.save({"a": torch.zeros(2)}, {"method": "other"}, file)
    scan = Scan(np.ones((128, 128, 128), np.float32), np.ones((128, 128, 128), bool), None, (2.0, 2.0, 2.0))
    with pytest.raises(WeightsError):
        get_corrector("deepem").from_options(weights_file=str(file)).estimate(scan)


def test_its_memory_is_asked_for(phantom_file):
    from biascorr_pydra.interfaces.pydra.needs import for_correction
    from biascorr_pydra.interfaces.pydra.tasks import CorrectBias

    asked = {method: for_correction(CorrectBias(in_file=phantom_file, method=method)) for method in ("n4", "deepem")}
    assert (asked["n4"].mem_gb, asked["deepem"].mem_gb) == (0.8, 1.2)
