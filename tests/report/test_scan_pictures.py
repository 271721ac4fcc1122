"""The pictures of the scans' pages: slices, scales, outlines and histograms."""

import io

import numpy as np
import pytest
from PIL import Image
from written_cohort import AFFINE, volumes, write_scan, write_tissues

from biascorr_pydra.report.scan import geometry, histograms, mosaic, plots
from biascorr_pydra.report.scan.volumes import ScanImages

FOLDER = "n4/sub-01/ses-1/anat/sub-01_ses-1"

pytestmark = pytest.mark.usefixtures("small_pictures")


def read_images(out, codes="RAS", **options):
    write_scan(out, codes=codes, **options)
    images = ScanImages()
    names = {"corrected": "desc-preproc_T1w", "bias": "desc-T1w_biasfield", "mask": "desc-brain_mask"}
    images.add("n4", {kind: out / f"{FOLDER}_{name}.nii.gz" for kind, name in names.items()})
    return images


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)


# --- slices


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PSR"])
def test_the_same_slices_and_letters_from_every_orientation(out, codes):
    """Rows run from anterior or superior, columns from left or (sagittal) posterior, as letters say."""
    corrected, bias, _ = volumes()
    images = read_images(out, codes)
    view = images.view
    acquired = (corrected * bias).astype(np.float32)
    for axis, plane in ((2, "axial"), (1, "coronal"), (0, "sagittal")):
        across, up = (i for i in range(3) if i != axis)
        letters = {"axial": "LRAP", "coronal": "LRSI", "sagittal": "PASI"}[plane]
        assert geometry.EDGES[plane] == letters
        for row, index in enumerate(view.at[axis]):
            shown = images.methods["n4"].acquired[plane][row]
            for column, line in ((0, 0), (3, 5), (shown.shape[1] - 1, shown.shape[0] - 1)):
                voxel = [0, 0, 0]
                voxel[axis], voxel[across] = index, view.start[across] + column
                voxel[up] = view.stop[up] - 1 - line
                assert shown[line, column] == pytest.approx(acquired[tuple(voxel)], rel=1e-5)
            assert images.position_mm[axis][row] == pytest.approx(
                AFFINE[axis, axis] * index + AFFINE[axis, 3], abs=1e-3
            )
        drawn = {text: at for at, text, *_ in mosaic.edge_labels(plane, 0, images.position_mm, (0, 0), (100, 100))}
        left, right, top, bottom = (drawn[letter] for letter in letters)
        assert left[0] < 20 and right[0] > 80 and top[1] < 20 and bottom[1] > 80
    # The scan is brighter on the subject's right; so is the right of the axial slices, under the letter R.
    axial = pixels(mosaic.draw_anatomy(images, images.methods["n4"].acquired))[:, :110].mean(2)
    assert axial[40:-60, 70:90].mean() > axial[40:-60, 20:40].mean() + 10


def test_slices_are_at_quantiles_of_the_mask():
    mask = np.zeros((40, 50, 60), bool)
    mask[10:30, 5:45, 20:50] = True
    view = geometry.View.through(mask, (1.0, 2.0, 3.0))
    assert view.at == ((11, 17, 22, 27), (8, 19, 30, 40), (22, 30, 39, 46))
    assert (view.start, view.stop) == ((0, 0, 16), (40, 50, 54))
    assert view.extent_mm == (40, 100, 114)
    thin = np.zeros((5, 5, 2), bool)
    thin[2, 2, 1] = True
    assert geometry.View.through(thin, (1.0, 1.0, 1.0)).at == ((2,), (2,), (1,))


def test_voxels_of_unequal_sides_are_drawn_in_millimetres(monkeypatch):
    """A cube of 40 mm on a grid of 1 x 2 x 5 mm is as wide as it is tall in every plane, at one scale."""
    monkeypatch.setattr(mosaic, "WIDTH_PX", 1080)  # room between the letters
    data = np.zeros((100, 50, 20), np.float32)
    data[30:70, 15:35, 6:14] = 1
    images = ScanImages(limits=(0.0, 1.0), position_mm=((0.0,) * 4,) * 3)
    images.view = geometry.View(((50,), (25,), (10,)), (0, 0, 0), data.shape, (1.0, 2.0, 5.0))
    images.outline = images.view.slices(data > 0)
    drawn = pixels(mosaic.draw_anatomy(images, images.view.slices(data)))[: -mosaic.BAR_PX].mean(2)
    scale = (mosaic.WIDTH_PX - 2 * mosaic.GAP_PX) / 300
    for i in range(3):
        left = round(i * (100 * scale + mosaic.GAP_PX))
        inner = drawn[40:-40, left + 40 : left + round(100 * scale) - 40] > 128
        assert np.ptp(np.flatnonzero(inner.any(0))) + 1 == pytest.approx(40 * scale, abs=3)
        assert np.ptp(np.flatnonzero(inner.any(1))) + 1 == pytest.approx(40 * scale, abs=3)


# --- scales and colors


def test_one_gray_scale_for_acquired_and_corrected(out):
    corrected, bias, mask = (np.asarray(v, np.float32) for v in volumes())
    images = read_images(out)
    low, high = np.percentile((corrected * bias)[mask > 0], (0.5, 99.5))
    assert images.limits == pytest.approx((low, high), rel=1e-6)
    # The same value has the same gray in every picture: a quarter of the way up the scale.
    flat = {
        plane: [np.full(s.shape, low + 0.25 * (high - low)) for s in outlines]
        for plane, outlines in images.outline.items()
    }
    drawn = pixels(mosaic.draw_anatomy(images, flat))
    assert drawn[60, 30] == pytest.approx([64, 64, 64], abs=4)


def test_limits_by_hand():
    data = np.arange(1001.0)
    assert geometry.intensity_limits(data) == (5.0, 995.0)
    data[0] = np.nan
    assert geometry.intensity_limits(data)[1] == pytest.approx(995.005)
    assert geometry.intensity_limits(np.full(8, 7.0)) == (7.0, 8.0)


@pytest.mark.parametrize(
    ("fields", "top"),
    [
        ([np.ones(50)], 1.1),
        ([np.linspace(0.7, 1.02, 500)], 1.5),
        ([np.linspace(0.95, 1.02, 500), np.linspace(0.98, 1.9, 500)], 2.0),
        ([np.array([0.0, -3, np.nan, np.inf, 1.25, 1.25])], 1.3),
        ([np.full(4, 1e9)], 100.0),
        ([], 1.1),
    ],
)
def test_field_scale_is_symmetric_around_one(fields, top):
    assert geometry.field_limits(fields) == (1 / top, top)


def test_field_colors():
    paint = mosaic.field_colors(2.0)
    dark, one, bright, beyond = (paint(np.full((4, 4), value))[2, 2].astype(int) for value in (0.5, 1, 2, 9))
    assert dark[2] > dark[0] + 60
    assert one.min() > 240
    assert bright[0] > bright[2] + 60
    assert (beyond == bright).all()
    assert (paint(np.full((4, 4), np.nan)) == 0).all()
    # Twice too bright and twice too dark are equally far from the middle of the table.
    table = mosaic.field_colors(4.0)
    half, double = (table(np.full((2, 2), value))[0, 0].astype(int) for value in (0.5, 2.0))
    assert half[2] > half[0] and double[0] > double[2]


def test_outlines_of_mask_and_tissues_are_where_they_are(out):
    images = read_images(out)
    write_tissues(out)
    images.add_tissues(out / f"{FOLDER}_dseg.nii.gz")
    plain = pixels(mosaic.draw_anatomy(images, images.methods["n4"].corrected))
    drawn = pixels(mosaic.draw_tissues(images, images.methods["n4"].corrected))
    changed = np.abs(drawn - plain).sum(2) > 90
    assert changed[: -mosaic.BAR_PX].mean() > 0.02
    assert not changed[-mosaic.BAR_PX + 4 :].any()
    blue = drawn[..., 2] - drawn[..., 0] > 60  # white matter's; inside the mask's orange
    assert blue.any()
    cols = np.nonzero(blue[:, :100])[1]
    orange = drawn[:, :100, 0] - drawn[:, :100, 2] > 60
    assert np.nonzero(orange)[1].min() < cols.min() and np.nonzero(orange)[1].max() > cols.max()


def test_what_is_enlarged_has_the_colors_of_its_voxels(out):
    """Colors are interpolated, not values: a field of two halves is drawn in their two colors, but at the border."""
    images = read_images(out)
    halves = {
        plane: [np.where(np.arange(s.shape[1]) < s.shape[1] // 2, 0.8, 1.25) * np.ones(s.shape) for s in slices]
        for plane, slices in images.outline.items()
    }
    drawn = pixels(mosaic.draw_field(images, halves, None, (0.5, 2.0)))
    paint = mosaic.field_colors(2.0)
    for columns, value in ((slice(24, 34), 0.8), (slice(74, 84), 1.25)):  # beside the letters, in the first slice
        wanted = paint(np.full((2, 2), value))[0, 0].astype(int)
        shown = np.median(drawn[30:34, columns], axis=(0, 1))
        assert np.abs(shown - wanted).max() < 14  # the black outline is near, and it is a JPEG


def test_an_outline_is_where_the_mask_ends_wherever_it_lies():
    """Half a voxel beyond the outermost voxels, in a corner as in the middle; the picture's own edge is none."""
    for first in (3, 9):
        mask = np.zeros((16, 20), bool)
        mask[first : first + 4, first + 1 : first + 7] = True
        (line,) = mosaic.contours(mask)
        assert (line.min(0), line.max(0)) == (
            pytest.approx([first + 0.5, first - 0.5]),
            pytest.approx([first + 6.5, first + 3.5]),
        )
    mask = np.zeros((16, 20), bool)
    mask[:, :5] = True
    (line,) = mosaic.contours(mask)
    assert set(line[:, 0]) == {4.5}
    assert mosaic.contours(np.zeros((16, 20), bool)) == []
    assert mosaic.contours(np.ones((1, 20), bool)) == []


# --- histograms


@pytest.mark.parametrize(("step", "n_levels"), [(1, 110), (0.25, 700), (8, 12)])
def test_histogram_of_integers_has_no_comb(step, n_levels):
    """Equally many voxels on every level fill every bin equally, also after the rounding of corrected x field."""
    values = np.repeat(np.arange(n_levels), 3) * step * np.float32(1 + 1e-7)
    edges = histograms.histogram_edges(values, 0.0, n_levels * step)
    counts = np.histogram(values, edges)[0]
    assert len(edges) <= 131
    assert counts.sum() == values.size
    filled = counts[: np.flatnonzero(counts)[-1]]
    assert filled.min() == filled.max() == counts.max()


def test_counts_are_numpys():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-5, 60, 5000), rng.uniform(-5, 60, 5000)
    edges = histograms.histogram_edges(x, 0.0, 50.0)
    np.testing.assert_allclose(edges, np.linspace(0, 50, 129))
    np.testing.assert_array_equal(histograms.counts_of(np.append(x, np.nan), edges), np.histogram(x, edges)[0])
    np.testing.assert_array_equal(histograms.joint_counts(x, y, edges), np.histogram2d(y, x, (edges, edges))[0])


def test_counts_by_tissue_and_of_some_of_many_voxels(monkeypatch):
    """Of 9 voxels a third is counted, the first, fourth and seventh: one of each tissue, its bin by hand."""
    monkeypatch.setattr(histograms, "MOST_COUNTED", 3)
    labels = np.array([3, 0, 0, 1, 0, 0, 2, 0, 7], np.int8)
    values = np.array([5.0, 1, 1, 15, 1, 1, 25, 1, 1])
    seen = []
    monkeypatch.setattr(histograms, "draw_curves", lambda picture, box, edges, curves, title: seen.extend(curves))
    monkeypatch.setattr(histograms, "histogram_edges", lambda *arguments: np.array([0.0, 10, 20, 30]))
    histograms.draw_histograms(values, values + 10, labels, (0.0, 30.0))
    assert {curve.name: curve.before.tolist() for curve in seen} == {
        "CSF": pytest.approx([1 / 3, 0, 0]),
        "GM": pytest.approx([0, 1 / 3, 0]),
        "WM": pytest.approx([0, 0, 1 / 3]),
    }
    assert {curve.name: curve.after.tolist() for curve in seen} == {
        "CSF": pytest.approx([0, 1 / 3, 0]),
        "GM": pytest.approx([0, 0, 1 / 3]),
        "WM": [0, 0, 0],  # 35 is in no bin
    }


def test_axes_of_the_joint_histogram_are_where_the_numbers_are():
    """Voxels of one value, 30 before and 10 after, are one dark block at 30 across and 10 up."""
    counts = histograms.joint_counts(np.full(50, 30.5), np.full(50, 10.5), np.linspace(0, 64, 65))
    picture = Image.new("RGB", (400, 330), "white")
    plots.draw_joint(picture, (100, 20, 256, 256), np.linspace(0, 64, 65), counts)
    colored = np.asarray(picture, int)[20:276, 102:356]
    rows, columns = np.nonzero(np.ptp(colored, axis=2) > 20)  # axes, texts and the dots of no change are black
    assert (columns.min() + 2, columns.max() + 3) == (120, 124)
    assert (256 - rows.max() - 1, 256 - rows.min()) == (40, 44)


def test_histograms_show_tissues_that_became_narrower():
    """White matter's line, blue, ends up narrower and taller than its area; without labels there is one of each."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 2, 3], 4000)
    means = np.repeat([80.0, 110, 30], 4000)
    before, after = means + 8 * rng.standard_normal(12000), means + 4 * rng.standard_normal(12000)
    drawn = pixels(histograms.draw_histograms(before, after, labels, (10.0, 130.0)))[:, 330:680]  # beside the legend
    blue = (np.abs(drawn - (0, 114, 178)) < 12).all(2)  # the palette is of 96 colors
    area = np.abs(drawn - (255 - 0.28 * (255 - np.array([0, 114, 178])))).max(2) < 6
    assert blue.any() and area.any()
    line_top, area_top = np.flatnonzero(blue.any(1))[0], np.flatnonzero(area.sum(1) > 20)[0]  # without soft edges
    assert line_top < area_top - 50
    halfway = (area_top + 305) // 2
    assert np.ptp(np.flatnonzero(area[halfway])) > 1.3 * np.ptp(np.flatnonzero(blue[halfway]))
    assert histograms.draw_histograms(before, after, None, (10.0, 130.0)).startswith(b"\x89PNG")
