"""UBC's unsupervised loss against hand-computed values."""

import math

import numpy as np
import pytest
import torch

from biascorr_pydra.methods.ubc import entropy as loss

KERNEL = np.exp(-0.5 * np.arange(-4, 5) ** 2)
KERNEL_ENDS = np.pad(KERNEL / KERNEL.sum(), 1)


# --- the entropy layer


def test_histogram_of_values_at_bin_centres_is_their_counts_under_the_kernel():
    values = torch.tensor([[2.5, 2.5, 2.5, 7.5]])  # bins of width 1 from 0 to 20
    histogram = loss.soft_histogram(values, torch.ones_like(values), 0, 20, bins=20)[0].numpy()
    # The histogram goes on as its mirror image beyond the first bin: what is in bin 2 is also at -2.
    bins = np.arange(20)
    expected = sum(
        count * np.interp(bins - at, np.arange(-5, 6), KERNEL_ENDS) for count, at in ((3, 2), (3, -2), (1, 7))
    )
    np.testing.assert_allclose(histogram, expected / expected.sum(), atol=1e-6)


def test_histogram_shares_a_value_between_its_neighbours():
    halfway, centres = torch.tensor([[10.0]]), torch.tensor([[9.5, 10.5]])
    histograms = [loss.soft_histogram(v, torch.ones_like(v), 0, 20, bins=20) for v in (halfway, centres)]
    torch.testing.assert_close(*histograms)
    quarter = loss.soft_histogram(torch.tensor([[9.75]]), torch.ones(1, 1), 0, 20, bins=20)
    weighted = loss.soft_histogram(centres, torch.tensor([[3.0, 1.0]]), 0, 20, bins=20)
    torch.testing.assert_close(quarter, weighted)


def test_histogram_is_close_to_a_kernel_density_estimate():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(60, 4, 3000), rng.normal(120, 6, 2000)])
    centres = np.arange(200) + 0.5
    density = np.exp(-0.5 * (values[:, None] - centres) ** 2).sum(0)
    density = density / density.sum() + 1e-30
    tensor = torch.tensor(values)[None]
    histogram = loss.soft_histogram(tensor, torch.ones_like(tensor), 0, 200)
    # Sharing between two bins adds f (1 - f), 1/6 on average, to the kernel's variance of 1.
    assert np.abs(histogram[0].numpy() - density).sum() < 0.01
    assert loss.entropy(histogram).item() == pytest.approx(-(density * np.log(density)).sum(), abs=5e-3)


def test_values_outside_the_range_count_in_the_end_bins_and_unweighted_ones_not_at_all():
    values, inside = torch.tensor([[-5.0, 30.0, 10.0]]), torch.tensor([[0.5, 19.5]])
    histogram = loss.soft_histogram(values, torch.tensor([[1.0, 1.0, 0.0]]), 0, 20, bins=20)
    torch.testing.assert_close(histogram, loss.soft_histogram(inside, torch.ones(1, 2), 0, 20, bins=20))


def test_a_value_that_is_no_number_makes_no_number():
    values = torch.tensor([[math.nan, 3.0]])
    assert loss.entropy(loss.soft_histogram(values, torch.ones(1, 2), 0, 20, bins=20)).isnan().all()


def test_entropy_by_hand():
    entropies = loss.entropy(torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0, 0, 0], [0.25] * 4]))
    torch.testing.assert_close(entropies, torch.tensor([1.5 * math.log(2), 0.0, math.log(4)]))


def test_entropy_has_the_gradient_of_finite_differences():
    values = torch.rand(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 18 + 1
    values.requires_grad_()
    counted = torch.rand(1, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def of(v):
        return loss.entropy(loss.soft_histogram(v, counted, 0, 20, bins=20))

    assert torch.autograd.gradcheck(of, values, eps=1e-6, atol=1e-6)


# --- the loss


@pytest.fixture(scope="module")
def two_tissues():
    """10^3 image: empty, but for a cube of 6^3 whose one half has 2 and whose other has 4."""
    data = torch.zeros(1, 1, 10, 10, 10)
    data[..., 2:5, 2:8, 2:8], data[..., 5:8, 2:8, 2:8] = 2, 4
    return data


def test_foreground_is_brighter_than_the_mean(two_tissues):
    assert torch.equal(loss.foreground(two_tissues), two_tissues > 0)


def test_terms_without_a_field(two_tissues):
    terms = loss.loss_terms(two_tissues, torch.zeros_like(two_tissues))
    assert terms["roughness"].item() == 0
    assert terms["spread"].item() == pytest.approx(0, abs=1e-6)
    # Foreground mean 3: half of the voxels at log 2/3, half at log 4/3.
    logs = torch.tensor([[2 / 3, 4 / 3]]).log()
    expected = loss.entropy(loss.soft_histogram(logs, torch.ones(1, 2), *loss.LOG_RANGE))
    torch.testing.assert_close(terms["entropy"], expected)
    # Forward differences inside the cube: 5^3 places, of which 5^2 cross from 2/3 to 4/3, the others see none.
    logs = torch.tensor([[math.sqrt(1e-8) + 0.02, math.sqrt((2 / 3) ** 2 + 1e-8) + 0.02]]).log()
    counts = torch.tensor([[100.0, 25.0]])
    expected = loss.entropy(loss.soft_histogram(logs, counts, *loss.LOG_GRADIENT_RANGE))
    torch.testing.assert_close(terms["gradient_entropy"], expected)


def test_terms_of_a_ramp(two_tissues):
    flat = (two_tissues > 0).float()
    ramp = torch.linspace(1, 1.9, 10).reshape(1, 1, 10, 1, 1).expand(1, 1, 10, 10, 10)
    terms = loss.loss_terms(flat, ramp.log())
    inside = torch.linspace(1.2, 1.7, 6)
    # The inverse field is scaled so that the output has mean 1: steps of 0.1 / 1.45; a tenth of the extent has 0.9.
    assert terms["roughness"].item() == pytest.approx(0.9 * 0.1 / 1.45, rel=1e-5)
    assert terms["spread"].item() == pytest.approx((inside / 1.45).std(correction=0).item(), rel=1e-4)


def test_the_right_field_has_the_lowest_loss(two_tissues):
    ramp = torch.linspace(-0.2, 0.2, 10).reshape(1, 1, 10, 1, 1).expand(1, 1, 10, 10, 10)
    smooth = ramp.transpose(2, 3)
    acquired = two_tissues * smooth.exp()
    losses = [loss.total(loss.loss_terms(acquired, s * smooth)).item() for s in (-2, -1, 0, 1)]
    assert losses[1] == min(losses)


def test_scales_have_no_effect_on_the_loss(two_tissues):
    generator = torch.Generator().manual_seed(0)
    acquired = two_tissues * (1 + 0.1 * torch.rand(two_tissues.shape, generator=generator))
    log_inverse = 0.1 * torch.randn(two_tissues.shape, generator=generator)
    one, other = loss.loss_terms(acquired, log_inverse), loss.loss_terms(700 * acquired, log_inverse + 3)
    for name in loss.TERMS:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)


def test_terms_have_the_papers_weights():
    terms = {name: torch.tensor([1.0, 3.0]) * 10**i for i, name in enumerate(loss.TERMS)}
    assert list(terms) == ["entropy", "gradient_entropy", "roughness", "spread"]
    assert loss.total(terms).item() == 2 * 2 + 20 + 200 + 2000


def test_the_loss_is_in_float32_under_mixed_precision(two_tissues):
    log_inverse = (0.1 * two_tissues).requires_grad_()
    whole = loss.total(loss.loss_terms(two_tissues, log_inverse))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss.total(loss.loss_terms(two_tissues, log_inverse))
    assert mixed.dtype == torch.float32
    assert mixed.item() == whole.item()
