"""deepem: the fit to classes, the classes from histograms, what is pure, the networks' inputs, corrector, training."""

from contextlib import nullcontext
from dataclasses import replace
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
from biascorr_pydra.correction.correct import correct_file
from biascorr_pydra.correction.estimate import estimate_in_full, scan_on_grid
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError, WeightsError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.canonical import uncrop
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.methods.deepem import pure_tissue
from biascorr_pydra.methods.deepem.fit import _stiffer, fit_classes, guide
from biascorr_pydra.methods.deepem.networks import MIXED, PureVoxels, TissueNetworks, TissuePrior, steps_to_neighbours
from biascorr_pydra.methods.deepem.pure_tissue import box_of
from biascorr_pydra.methods.deepem.training import DeepEMTraining
from biascorr_pydra.methods.deepem.training_data import PURE, ClassedHeads, _cut, _thick, classes_of, pure_of
from biascorr_pydra.simulation.heads import HeadSampler

EXAMPLES = Path(__file__).parents[2] / "bids_examples"


pytestmark = pytest.mark.usefixtures("one_thread")


# --- the fit


def mixture(shape=(20, 22, 24), noise=0.0, seed=0):
    """Log image, classes, true log field: three classes in blobs, each used in two thirds of its voxels."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(5, 5, 5)) * 0.2
    field = LogBiasSpline.spanning(points, shape).on_grid(shape, np.float64)
    blobs = LogBiasSpline.spanning(rng.normal(size=(9, 9, 9)), shape).on_grid(shape, np.float64)
    classes = np.digitize(blobs, np.quantile(blobs, (1 / 3, 2 / 3))) + 1
    log_image = np.array([0, 0.1, 0.9, 1.7])[classes] + field + noise * rng.normal(size=shape)
    used = np.where(rng.random(shape) < 2 / 3, classes, 0)
    return torch.from_numpy(log_image), torch.from_numpy(used), field


def difference(solution, truth):
    found = LogBiasSpline.spanning(solution.control_points.numpy(), truth.shape).on_grid(truth.shape, np.float64)
    return (found - found.mean()) - (truth - truth.mean())


def test_field_and_means_are_found_together():
    log_image, used, field = mixture()
    solution = fit_classes(log_image, used, torch.ones_like(log_image), points=5, smoothness=1e-10)
    assert np.abs(difference(solution, field)).max() < 1e-3
    np.testing.assert_allclose(np.diff(solution.means.numpy()), [0.8, 0.8], atol=1e-4)
    # The constant that field and means share: the field is 0 on average where it was fitted.
    found = LogBiasSpline.spanning(solution.control_points.numpy(), field.shape).on_grid(field.shape, np.float64)
    assert abs(found[used.numpy() > 0].mean()) < 1e-9


def test_voxels_of_a_wrong_class_count_little():
    log_image, used, field = mixture(noise=0.02)
    rng = np.random.default_rng(1)
    wrong = torch.from_numpy(rng.random(field.shape) < 0.08) & (used > 0)
    used = torch.where(wrong, used % 3 + 1, used)
    weight = torch.ones_like(log_image)
    robust = fit_classes(log_image, used, weight, points=5, smoothness=1e-8)
    plain = fit_classes(log_image, used, weight, points=5, smoothness=1e-8, rounds=1)
    assert difference(robust, field).std() < 0.01 < difference(plain, field).std()
    np.testing.assert_allclose(robust.deviations.numpy(), 0.02, atol=0.006)


def test_smoothness_pulls_towards_a_straight_field():
    log_image, used, _ = mixture()
    stiff = fit_classes(log_image, used, torch.ones_like(log_image), points=5, smoothness=1e3)
    assert stiff.control_points.diff(n=2, dim=0).abs().max() < 1e-3


def test_a_field_to_start_from_tells_outliers_at_once():
    log_image, used, field = mixture(noise=0.02)
    wrong = torch.from_numpy(np.random.default_rng(1).random(field.shape) < 0.08) & (used > 0)
    used = torch.where(wrong, used % 3 + 1, used)
    weight, start = torch.ones_like(log_image), torch.from_numpy(field)
    once, plain = (
        fit_classes(log_image, used, weight, points=5, smoothness=1e-8, rounds=1, start=begin)
        for begin in (start, None)
    )
    assert difference(once, field).std() < 0.01 < difference(plain, field).std()


def test_smoothness_follows_the_field():
    log_image, used, _ = mixture(noise=0.02)

    def fit(smoothness, usual, rounds=2):
        options = {"points": 5, "smoothness": smoothness, "usual": usual, "rounds": rounds}
        return fit_classes(log_image, used, torch.ones_like(log_image), **options).control_points

    def roughness(points):
        return sum(float((points.diff(n=2, dim=axis) ** 2).sum()) for axis in range(3))

    found = roughness(fit(1e-3, None, rounds=1))
    torch.testing.assert_close(fit(1e-3, found), fit(1e-3, None))  # as rough as usual: as it was
    assert roughness(fit(1e-3, found / 10)) > roughness(fit(1e-3, found)) > roughness(fit(1e-3, 3 * found))
    assert _stiffer(2.0, 1.0) == 0.5
    assert (_stiffer(1.0, 1e-6), _stiffer(0.0, 1.0)) == pytest.approx((1 / 30, 10 / 3))


def test_another_field_guides_the_fit_where_there_is_no_voxel():
    log_image, used, field = mixture(noise=0.02)
    used[7:] = 0
    empty = torch.zeros_like(used, dtype=torch.bool)
    empty[14:] = True
    log_field = torch.from_numpy(field)

    def fit(guided):
        options = {"points": 5, "smoothness": 1e-8, "guided": guided}
        return fit_classes(log_image, used, torch.ones_like(log_image), **options)

    alone = difference(fit(None), field)
    guided = fit(guide(log_field, empty, points=5, weight=0.1))
    error = difference(guided, field)
    assert error[14:].std() < 0.01 < 0.1 < alone[14:].std()
    # Its shape alone counts: no constant, and nothing of it beside where it is to guide.
    other = torch.where(empty, log_field + 3, 17.0)
    torch.testing.assert_close(fit(guide(other, empty, points=5, weight=0.1)).control_points, guided.control_points)
    nowhere = fit(guide(log_field, torch.zeros_like(empty), points=5, weight=0.1))
    torch.testing.assert_close(nowhere.control_points, fit(None).control_points)


def test_weight_zero_is_as_good_as_unused():
    log_image, used, _ = mixture(noise=0.05)
    some = torch.rand(used.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    one = fit_classes(log_image, torch.where(some, used, 0), torch.ones_like(log_image), points=4, smoothness=1e-6)
    other = fit_classes(log_image, used, some.double(), points=4, smoothness=1e-6, rounds=1)
    same = fit_classes(
        log_image, torch.where(some, used, 0), torch.ones_like(log_image), points=4, smoothness=1e-6, rounds=1
    )
    torch.testing.assert_close(
        other.control_points - other.control_points.mean(), same.control_points - same.control_points.mean()
    )
    assert not torch.equal(one.control_points, same.control_points)


# --- what is pure


def test_the_box_around_a_mask_by_hand():
    mask = torch.zeros((6, 7, 8), dtype=torch.bool)
    mask[2, 3, 4] = mask[4, 3, 5] = True
    assert box_of(mask) == (slice(2, 5), slice(3, 4), slice(4, 6))
    assert box_of(mask, 2) == (slice(0, 6), slice(1, 6), slice(2, 8))


def test_steps_to_neighbours_by_hand():
    line = torch.tensor([0.0, 1.0, 1.0, 4.0]).view(4, 1, 1)
    assert steps_to_neighbours(line).flatten().tolist() == [1, 1, 3, 3]
    # 0 1 / 1 4: along both axes.
    assert steps_to_neighbours(line.view(1, 2, 2)).flatten().tolist() == [2, 4, 4, 6]


def test_the_contrast_comes_from_the_image():
    """Two tissues in stripes, a prior that only knows in which half each is more frequent."""
    shape = (24, 24, 24)
    generator = torch.Generator().manual_seed(0)
    share = torch.linspace(0.1, 0.9, 24).view(24, 1, 1).expand(shape)
    coarse = torch.rand((8, 8, 8), generator=generator).repeat_interleave(3, 0).repeat_interleave(3, 1)
    truth = (coarse.repeat_interleave(3, 2) < share).long() + 1
    prior = torch.zeros(9, *shape)
    prior[1], prior[2] = 1 - share, share
    noise = 0.05 * torch.randn(shape, generator=generator)
    for bright in (1, 2):  # whichever is brighter
        log_image = (truth == bright) * 0.5 + noise
        before = (prior.argmax(0) == truth).float().mean()
        found = pure_tissue.posterior(log_image, prior)
        assert before < 0.7 and (found.argmax(0) == truth).float().mean() > 0.8
        torch.testing.assert_close(found.sum(0), torch.ones(shape))


def test_outside_that_is_sure_stays_outside():
    prior = torch.full((9, 8, 8, 8), 1 / 9)
    prior[:, :4] = 0
    prior[0, :4] = 1
    found = pure_tissue.posterior(torch.rand((8, 8, 8), generator=torch.Generator().manual_seed(0)), prior)
    assert (found[0, :4] == 1).all() and (found[1:, :4] == 0).all()


# --- the networks


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


# --- the corrector


def phantom_case(name="sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"):
    """A head of the example data set with its true field and brain."""
    sources = Sources(data=[EXAMPLES / "phantom"], derivatives=[EXAMPLES / "phantom_truth"])
    (planned,) = [p for p in plan_cases(sources) if name.startswith(p.facts["scan"])]
    return planned.make()


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
    case = phantom_case()
    corrector = get_corrector("deepem").from_options(rounds=1)
    scan = scan_on_grid(corrector, case.affine, case.scan(False))
    first = corrector.estimate(scan).log_bias
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
    corrector = get_corrector("deepem").from_options(rounds=1)
    log_bias, found = estimate_in_full(corrector, case.affine, case.scan(False), device="cpu", seed=0)
    assert found.brain.shape == log_bias.shape == case.data.shape
    assert 2 * (found.brain & case.brain).sum() > 0.9 * (found.brain.sum() + case.brain.sum())


def test_a_box_is_put_back_where_it_was():
    rng = np.random.default_rng(0)
    whole = ndimage.gaussian_filter(rng.normal(size=(20, 24, 22)), 3) > 0
    first, last = (3.0, 0.0, 5.0), (16.0, 23.0, 19.0)
    part = whole[3:17, :, 5:20]
    found = uncrop(part, first, last, whole.shape)
    assert np.array_equal(found[3:17, :, 5:20], part) and found.sum() == part.sum()


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


# --- the training


def heads(stripped=0.0):
    """Label maps that could not be simpler: a cube of gray matter around white, a skull around that."""
    labels = torch.zeros(40, 40, 40, dtype=torch.int16)
    labels[4:36, 4:36, 4:36] = 502
    labels[8:32, 8:32, 8:32] = 3
    labels[14:26, 14:26, 14:26] = 2
    return ClassedHeads([labels], HeadSampler(stripped=stripped))


def test_classes_of_labels():
    labels = torch.tensor([0, 2, 41, 3, 4, 16, 17, 10, 11, 30, 502, 530])
    assert classes_of(labels).tolist() == [0, 1, 1, 3, 7, 2, 4, 5, 6, 8, 0, 0]


def test_a_drawn_head_and_its_classes_belong_together():
    data, generator = heads(), torch.Generator().manual_seed(3)
    for _ in range(4):
        head = data.draw(generator)
        assert {tuple(x.shape) for x in head.values()} == {(96, 96, 96)}
        assert set(head["classes"].unique().tolist()) <= {0, 1, 3}
        bare = head["image"] / head["log_bias"].exp()
        inside = [bare[head["classes"] == k] for k in (1, 3)]
        assert all(values.std() < 0.35 * values.mean() for values in inside)  # one tissue each
    assert data.small_field(generator).std() < 0.1


def test_what_is_pure_by_hand():
    classes = torch.tensor([0, 1, 1, 3, 3])
    own = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0])
    factor = torch.exp(torch.tensor([0.0, PURE + 0.01, PURE - 0.01, -PURE - 0.01, 0.0]))
    assert pure_of(classes, own * factor, own).tolist() == [0, MIXED, 1, MIXED, 3]


def test_voxels_of_blurred_heads_that_are_called_pure_have_their_tissue_s_intensity():
    data = replace(heads(), sampler=HeadSampler(stripped=1, noise=(0, 0), field_sd=(0, 0), contrasts=("T1w",)))
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        head = data.draw(generator)
        spread = {name: head["image"][head[name] == 3].std().item() for name in ("pure", "classes")}
        assert (head["pure"] == MIXED).any() and spread["pure"] < 0.7 * spread["classes"]
        assert ((head["pure"] == head["classes"]) | (head["pure"] == MIXED)).all()


def test_thick_slices_and_a_cut_view_by_hand():
    image = torch.arange(4.0).view(4, 1, 1).expand(4, 2, 2)
    assert _thick(image, 0)[:, 0, 0].tolist() == [0.5, 1.0, 2.0, 2.5]
    whole, classes = torch.ones(96, 96, 96), torch.ones(96, 96, 96, dtype=torch.int64)
    cut, cut_classes = _cut((whole, classes), torch.Generator().manual_seed(0))
    assert (cut == cut_classes).all() and 5 * 96**2 <= (cut == 0).sum() < 25 * 96**2
    assert whole.all() and classes.all()  # not in place


def test_stages_train_one_network_and_keep_the_other(tmp_path):
    options = {"data": str(tmp_path), "out": str(tmp_path / "out"), "batch": 1, "held_out": "1"}
    start = tmp_path / "start.safetensors"
    torch.manual_seed(0)
    weights.save(TissueNetworks().state_dict(), {"method": "deepem"}, start)
    for stage, other in (("prior", "pure"), ("pure", "prior")):
        training = DeepEMTraining(**options, stage=stage, start=str(start))
        network = training.build()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        (optimizer,) = optimizers = training.optimizers(network)
        batch = training.sample(heads(), torch.Generator().manual_seed(1))
        row = training.update(network, optimizers, batch, nullcontext)
        assert 0 < row["loss"] < 10 and 0 <= row["accuracy"] <= 1
        assert optimizer.param_groups[0]["lr"] == pytest.approx(training.learning_rate / 100)  # warms up
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and not [name for name in changed if name.startswith(other)]


def test_losses_by_hand():
    prior = DeepEMTraining(data=".", out=".")
    logits = torch.zeros(1, 9, 1, 1, 2)
    shares = torch.zeros(1, 9, 1, 1, 2)
    shares[0, 0, 0, 0, 0] = 1  # outside counts 1, brain counts 4
    shares[0, 2, 0, 0, 1] = 1
    logits[0, 2, 0, 0, 1] = 2.0
    one, other = np.log(9), np.log(8 + np.exp(2)) - 2
    assert float(prior._loss(logits, shares)[0]) == pytest.approx((one + 4 * other) / 5, rel=1e-5)
    pure = DeepEMTraining(data=".", out=".", stage="pure", start="x")
    logits = torch.zeros(1, 10, 1, 1, 2)
    logits[0, 9, 0, 0, 1] = 1.0
    wanted = torch.tensor([[[[0, 9]]]])  # outside counts 0.2, all else 1
    one, other = np.log(10), np.log(9 + np.e) - 1
    assert float(pure._loss(logits, wanted)[0]) == pytest.approx((0.2 * one + other) / 1.2, rel=1e-5)


@pytest.mark.parametrize(("options", "words"), [({"stage": "both"}, "stage"), ({"stage": "pure"}, "--start")])
def test_a_training_that_cannot_be_is_refused(options, words):
    with pytest.raises(InvalidParameterError, match=words):
        DeepEMTraining(data=".", out=".", **options)


def test_training_needs_label_maps(tmp_path):
    with pytest.raises(InvalidParameterError, match="label maps"):
        DeepEMTraining(data=str(tmp_path), out=".").split()


def test_its_memory_is_asked_for(phantom_file):
    from biascorr_pydra.interfaces.pydra.needs import for_correction
    from biascorr_pydra.interfaces.pydra.tasks import CorrectBias

    asked = {method: for_correction(CorrectBias(in_file=phantom_file, method=method)) for method in ("n4", "deepem")}
    assert (asked["n4"].mem_gb, asked["deepem"].mem_gb) == (0.8, 1.2)
