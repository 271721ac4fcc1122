"""The scans' pages, made from a small cohort of written files whose numbers are known."""

import io
import json
import re
from concurrent.futures.process import BrokenProcessPool

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from written_cohort import AFFINE, BEFORE, SHAPE, T1W, T2W, Page, volumes, write_scan, write_status

from biascorr_pydra.images import nifti
from biascorr_pydra.report.cohort.boilerplate import boilerplate
from biascorr_pydra.report.collect import Result, collect
from biascorr_pydra.report.paths import page_name, scan_page
from biascorr_pydra.report.scan import geometry, histograms, mosaic, pictures, write, write_scan_pages
from biascorr_pydra.report.scan.volumes import ScanImages

EVIL = "<script>alert(1)</script>"
FOLDER = "n4/sub-01/ses-1/anat/sub-01_ses-1"


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Pictures take most of the time; that of the histograms is drawn in a test of its own."""
    monkeypatch.setattr(mosaic, "WIDTH_PX", 360)
    stream = io.BytesIO()
    Image.new("L", (4, 2)).save(stream, "png")
    monkeypatch.setattr(pictures, "draw_histograms", lambda *arrays: stream.getvalue())


def write_tissues(out, scan=T1W, method="n4"):
    """A segmentation in shells beside a T1w that :func:`write_scan` wrote."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    r = x**2 + y**2 + z**2
    labels = np.select([r < 0.3, r < 0.55, r < 0.7], [2, 1, 3], 0).astype(np.uint8)
    stem = scan.rsplit("_", 1)[0]
    nib.save(nib.Nifti1Image(labels, AFFINE), out / method / f"{stem}_dseg.nii.gz")
    return labels


def gate(verdict, *reasons, applied="none"):
    checks = {"support": {"value": 0.1, "least": 0.55, "passed": False}, "curvature": {"value": 0.02, "most": 0.12}}
    return {"verdict": verdict, "reasons": list(reasons), "checks": checks, "applied": applied}


@pytest.fixture
def out(tmp_path):
    return tmp_path


@pytest.fixture
def cohort(out):
    """Two methods on a T1w, the second rejected; a T2w where the second failed."""
    accepted = {"gate": gate("accepted", applied="n4"), "skull_strip": "deepbet", "preset": "biascorr"}
    write_scan(out, metrics=accepted)
    write_tissues(out)
    write_scan(out, method="ubc", after=BEFORE, metrics={"gate": gate("rejected", "no support")})
    write_scan(out, T2W, metrics=accepted)
    write_status(
        out, (T1W, "n4", "done", "n/a"), (T1W, "ubc", "rejected", "no support"), (T2W, "n4", "done", "n/a"),
        (T2W, "ubc", "failed", f"out of memory {EVIL}"),
    )  # fmt: skip
    return out


def made(out, scan=T1W, **options):
    write_scan_pages(collect(out), n_procs=1, **options)
    return Page(scan_page(out, scan))


def read_images(out, codes="RAS", **options):
    write_scan(out, codes=codes, **options)
    images = ScanImages()
    names = {"corrected": "desc-preproc_T1w", "bias": "desc-T1w_biasfield", "mask": "desc-brain_mask"}
    images.add("n4", {kind: out / f"{FOLDER}_{name}.nii.gz" for kind, name in names.items()})
    return images


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)


# --- where pages are


def test_a_page_has_the_name_of_its_image():
    assert page_name("sub-01/ses-1/anat/sub-01_ses-1_run-2_T1w.nii.gz") == "sub-01_ses-1_run-2_T1w"
    assert page_name("sub-01/anat/sub-01_T1w.nii") == "sub-01_T1w"


def test_names_that_are_not_bids_are_safe_and_their_own():
    names = [
        page_name(scan) for scan in ("a/T1w.nii.gz", "b/T1w.nii.gz", f"sub-1/{EVIL}_T1w.nii", "sub-1/..", "x" * 999)
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{5,100}", name) for name in names)


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
        drawn = {text: at for at, text, *_ in mosaic._labels(plane, 0, images.position_mm, (0, 0), (100, 100))}
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
        plane: [np.full(s.shape, low + 0.25 * (high - low)) for s in found] for plane, found in images.outline.items()
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
    paint = mosaic._colors(2.0)
    dark, one, bright, beyond = (paint(np.full((4, 4), value), (8, 8))[4, 4].astype(int) for value in (0.5, 1, 2, 9))
    assert dark[2] > dark[0] + 60
    assert one.min() > 240
    assert bright[0] > bright[2] + 60
    assert (beyond == bright).all()
    assert (paint(np.full((4, 4), np.nan), (8, 8)) == 0).all()
    # Twice too bright and twice too dark are equally far from the middle of the table.
    table = mosaic._colors(4.0)
    half, double = (table(np.full((2, 2), value), (2, 2))[0, 0].astype(int) for value in (0.5, 2.0))
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
    np.testing.assert_array_equal(histograms._counts(np.append(x, np.nan), edges), np.histogram(x, edges)[0])
    np.testing.assert_array_equal(histograms._joint_counts(x, y, edges), np.histogram2d(y, x, (edges, edges))[0])


def test_histograms_show_tissues_that_became_narrower():
    """White matter's line, blue, ends up narrower and taller than its area; without labels there is one of each."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 2, 3], 4000)
    means = np.repeat([80.0, 110, 30], 4000)
    before, after = means + 8 * rng.standard_normal(12000), means + 4 * rng.standard_normal(12000)
    drawn = pixels(histograms.draw_histograms(before, after, labels, (10.0, 130.0)))[:, 330:680]  # beside the legend
    blue = (drawn == np.array([0, 114, 178])).all(2)
    area = np.abs(drawn - (255 - 0.28 * (255 - np.array([0, 114, 178])))).max(2) < 6
    assert blue.any() and area.any()
    line_top, area_top = np.flatnonzero(blue.any(1))[0], np.flatnonzero(area.sum(1) > 20)[0]  # without soft edges
    assert line_top < area_top - 50
    halfway = (area_top + 305) // 2
    assert np.ptp(np.flatnonzero(area[halfway])) > 1.3 * np.ptp(np.flatnonzero(blue[halfway]))
    assert histograms.draw_histograms(before, after, None, (10.0, 130.0)).startswith(b"\x89PNG")


# --- the page


def test_a_page_says_what_was_done_and_shows_it(cohort):
    done = write_scan_pages(collect(cohort), n_procs=1)
    assert (done.made, done.unchanged) == (2, 0)
    page = Page(scan_page(cohort, T1W))
    assert "n4 ✓ acceptedThe field was accepted and divided out." in page.text
    assert "ubc ✗ rejectedThe field was rejected; the image was passed on unchanged. Reason: no support." in page.text
    assert "CJV 0.8000 → 0.6000 −25.0% better" in page.text
    assert "support of the field by the image" in page.text and "at least 0.55" in page.text
    assert "field, ubc (unchanged)" in page.text
    assert "No errors to report!" in page.text
    names = {attributes["src"] for attributes in page.images()}
    stem = "figures/sub-01_ses-1_desc-"
    wanted = {f"{stem}acquired_T1w.jpg", f"{stem}tissues_T1w.jpg"}
    wanted |= {f"{stem}{m}{kind}_T1w.jpg" for m in ("n4", "ubc") for kind in ("corrected", "biasfield")}
    assert names == wanted | {f"{stem}{m}histograms_T1w.png" for m in ("n4", "ubc")}
    assert all((cohort / "reports" / name).is_file() for name in names)
    assert all(attributes["alt"].strip() for attributes in page.images())
    sizes = {Image.open(cohort / "reports" / name).size for name in names if name.endswith("jpg")}
    assert len(sizes) == 1  # so that they lie over one another


def test_a_failure_has_a_page_with_its_reason(cohort):
    page = made(cohort, T2W)
    assert f"ubc: the correction failed: out of memory {EVIL}" in page.text
    assert "The correction failed; there is no corrected image." in page.text
    assert "<script" not in page.source


def test_pages_link_to_one_another_and_to_the_cohort(cohort):
    page = made(cohort)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert "../report.html" in links and "sub-02_T2w.html" in links
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for href in links:
        if href.startswith("#"):
            assert href[1:] in ids
        elif href != "../report.html":
            assert (cohort / "reports" / href).is_file(), href
    labels = [attributes["for"] for tag, attributes in page.tags if tag == "label"]
    assert set(labels) <= set(ids)
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "iframe", "object", "embed", "base", "form"}]
    elsewhere = made(cohort, home=cohort.parent / "report.html")
    assert "../../report.html" in [attributes.get("href") for _, attributes in elsewhere.tags]


def test_names_and_errors_are_escaped(tmp_path):
    out = tmp_path / "<img src=x onerror=alert(2)>"
    hostile = {
        "source": f"bids:raw:sub-<b>/anat/{EVIL}_T1w.nii.gz",
        "warnings": [EVIL],
        "undefined": {f"before.{EVIL}": EVIL},
        "segmentation": {"method": EVIL},
        "before": {EVIL: 1},
        "gate": gate(EVIL, EVIL, applied=EVIL) | {"checks": {EVIL: {"value": EVIL, "most": EVIL}}},
        "skull_strip": EVIL,
        "runtime_s": {EVIL: 1},
    }
    write_scan(out, metrics=hostile)
    about = {"Method": {EVIL: EVIL, "Name": EVIL}, "Software": {EVIL: EVIL}}
    (out / f"{FOLDER}_desc-preproc_T1w.json").write_text(json.dumps(about))
    write_status(out, (T2W, EVIL, "failed", EVIL), (T2W, "n4", EVIL, EVIL))
    write_scan_pages(collect(out), n_procs=1)
    pages = sorted((out / "reports").glob("*.html"))
    assert len(pages) == 2
    for path in pages:
        page = Page(path)
        assert "script" not in {tag for tag, _ in page.tags}
        assert "<script" not in page.source and "<b>/" not in page.source
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert page.text.count(EVIL) >= 2
        assert all(re.fullmatch(r"figures/[\w.-]+", attributes["src"]) for attributes in page.images())


def test_the_cohorts_range_and_this_scans_place(out):
    values = [0.5, 0.6, 0.6, 0.7, 0.9]
    for number, value in enumerate(values, start=1):
        scan = f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"
        folder = out / "n4" / scan.rsplit("/", 1)[0]
        folder.mkdir(parents=True)
        record = {"source": f"bids:raw:{scan}", "before": BEFORE, "after": {"cjv": value}, "gate": gate("accepted")}
        (folder / f"sub-{number:02d}_desc-T1w_metrics.json").write_text(json.dumps(record))
    write_status(out)
    assert "cohort 0.6000 (0.6000–0.7000); better than 2 of 4 others" in made(out, "sub-02/anat/sub-02_T1w.nii.gz").text
    best = Page(scan_page(out, "sub-01/anat/sub-01_T1w.nii.gz"))
    assert "better than 4 of 4 others" in best.text
    strip = next(a["aria-label"] for tag, a in best.tags if tag == "svg")
    assert strip.startswith("5 scans: median 0.6000, quartiles 0.6000 to 0.7000, range 0.5000 to 0.9000")
    assert "better than 0 of 4 others" in Page(scan_page(out, "sub-05/anat/sub-05_T1w.nii.gz")).text


def test_few_scans_have_no_range(cohort):
    assert "1 scan only; no range" in made(cohort).text


def test_what_makes_methods_incomparable_is_said(out, cohort):
    write_scan(out, method="ubc", metrics={"before": BEFORE | {"cjv": 0.81}, "segmentation": {"method": "kmeans"}})
    done = write_scan_pages(collect(out), n_procs=1)
    said = {problem.text for problem in done.problems}
    assert "the methods were scored with different segmentations" in said
    assert any("CJV before differs between methods" in text for text in said)
    again = write_scan_pages(collect(out), n_procs=1)
    assert (again.made, {problem.text for problem in again.problems}) == (0, said)


def test_without_mask_and_segmentation_it_is_said(out):
    write_scan(out)
    (out / f"{FOLDER}_desc-brain_mask.nii.gz").unlink()
    page = made(out)
    assert "detected head (there is no brain mask)" in page.text
    assert not [a for a in page.images() if "outlines" in a["alt"]]


# --- damaged files


def test_a_damaged_image_is_said_and_stops_nothing(cohort):
    file = cohort / f"{FOLDER}_desc-preproc_T1w.nii.gz"
    file.write_bytes(file.read_bytes()[:800])
    done = write_scan_pages(collect(cohort), n_procs=1)
    assert [problem.file for problem in done.problems] == [T1W]
    assert done.made == 2
    page = Page(scan_page(cohort, T1W))
    assert f"{FOLDER}_desc-preproc_T1w.nii.gz: not a complete gzip file" in page.text
    assert str(cohort) not in page.source
    assert any("corrected by ubc" in a["alt"] for a in page.images())
    assert not any("corrected by n4" in a["alt"] for a in page.images())
    # It is looked at again until it is put right.
    assert write_scan_pages(collect(cohort), n_procs=1).made == 1
    write_scan(cohort, metrics={"gate": gate("accepted")})
    assert write_scan_pages(collect(cohort), n_procs=1).problems == []
    assert any("corrected by n4" in a["alt"] for a in Page(scan_page(cohort, T1W)).images())


def test_an_image_of_another_grid_is_said(cohort):
    file = cohort / "ubc/sub-01/ses-1/anat/sub-01_ses-1_desc-T1w_biasfield.nii.gz"
    nifti.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), AFFINE), file)
    assert "not on the grid of the other images of this scan" in made(cohort).text


def test_a_damaged_segmentation_costs_only_its_outlines(cohort):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), cohort / f"{FOLDER}_dseg.nii.gz")
    page = made(cohort)
    assert "the segmentation cannot be read" in page.text
    assert any("outlines of brain mask:" in a["alt"] for a in page.images())


def test_records_of_other_shapes_are_not_fatal(out):
    odd = {"before": [1], "after": "x", "field": 3, "undefined": ["a"], "segmentation": None, "runtime_s": 5}
    write_scan(out, metrics=odd | {"warnings": 7, "gate": {"verdict": 3, "checks": {"a": 1}, "reasons": 5}})
    write_status(out)
    assert write_scan_pages(collect(out), n_procs=1).problems == []


def test_a_page_that_cannot_be_written_stops_no_other(cohort):
    blocked = scan_page(cohort, T1W)
    (blocked / "x").mkdir(parents=True)
    done = write_scan_pages(collect(cohort), n_procs=1)
    assert [problem.file for problem in done.problems] == [T1W]
    assert "the page cannot be written" in done.problems[0].text
    assert scan_page(cohort, T2W).is_file()


# --- again


def test_pages_are_made_again_only_where_something_changed(cohort, monkeypatch):
    opened = []
    load = nifti.load
    monkeypatch.setattr(nifti, "load", lambda file: opened.append(file) or load(file))
    write_scan_pages(collect(cohort), n_procs=1)
    first = {path: path.stat().st_mtime_ns for path in (cohort / "reports").rglob("*.*")}
    opened.clear()
    again = write_scan_pages(collect(cohort), n_procs=1)
    assert (again.made, again.unchanged, opened) == (0, 2, [])
    assert {path: path.stat().st_mtime_ns for path in (cohort / "reports").rglob("*.*")} == first
    # Another outcome: other words, the same pictures.
    write_status(cohort, (T2W, "ubc", "failed", "another reason"))
    assert write_scan_pages(collect(cohort), n_procs=1).made == 2  # T1w's states are no longer known
    assert opened == [] and "another reason" in Page(scan_page(cohort, T2W)).text
    # An image that was written anew, and a picture that was removed.
    corrected = cohort / "n4" / "sub-02/anat/sub-02_desc-preproc_T2w.nii.gz"
    nifti.save(load(corrected), corrected)
    (cohort / "reports/figures/sub-01_ses-1_desc-acquired_T1w.jpg").unlink()
    assert write_scan_pages(collect(cohort), n_procs=1).made == 2
    assert corrected in opened
    assert (cohort / "reports/figures/sub-01_ses-1_desc-acquired_T1w.jpg").is_file()


def test_pictures_that_a_page_no_longer_shows_are_removed(cohort):
    made(cohort)
    gone = cohort / "reports/figures/sub-01_ses-1_desc-ubccorrected_T1w.jpg"
    foreign = cohort / "reports/figures/mine.jpg"
    foreign.write_bytes(gone.read_bytes())
    write_status(cohort, (T1W, "ubc", "failed", "no space"))
    made(cohort)
    assert not gone.exists() and foreign.exists()


def test_waiting_scans_have_no_page(out):
    write_status(out, (T1W, "n4", "waiting", "n/a"), (T2W, "n4", "failed", "x"))
    assert write_scan_pages(collect(out), n_procs=1).made == 1
    assert not scan_page(out, T1W).exists()


def test_a_process_that_dies_costs_nothing(out, monkeypatch):
    class Dying:
        def __init__(self, *args, **options):
            pass

        def __enter__(self):
            raise BrokenProcessPool

        def __exit__(self, *args):
            return False

    monkeypatch.setattr(write, "ProcessPoolExecutor", Dying)
    monkeypatch.setattr(write, "FEW", 1)
    write_status(out, *[(f"sub-{i}/anat/sub-{i}_T1w.nii.gz", "n4", "failed", "x") for i in range(3)])
    assert write_scan_pages(collect(out), n_procs=2).made == 3
    assert len(list((out / "reports").glob("*.html"))) == 3


@pytest.mark.slow
def test_pages_made_in_parallel_are_the_same(tmp_path):
    texts = []
    for n_procs in (1, 2):
        out = tmp_path / str(n_procs) / "out"
        for number in range(8):
            scan = f"sub-{number}/anat/sub-{number}_T1w.nii.gz"
            write_scan(out, scan)
            for kind in ("preproc_T1w", "T1w_biasfield"):
                assert (out / f"n4/sub-{number}/anat/sub-{number}_desc-{kind}.nii.gz").is_file()
        assert write_scan_pages(collect(out), n_procs=n_procs).made == 8
        pages = sorted((out / "reports").glob("*.html"))
        # The other processes do not know that pictures are small here.
        apart = r'made [\d: -]+UTC| (width|height)="\d+"'
        texts.append([re.sub(apart, "", page.read_text()) for page in pages])
    assert texts[0] == texts[1]


# --- the boilerplate


def test_boilerplate_says_what_was_run():
    record = {
        "gate": gate("accepted", applied="ubc"), "skull_strip": "deepbet",
        "segmentation": {"method": "atropos", "image": "the acquired image"},
    }  # fmt: skip
    about = {
        "Method": {"Name": "ubc", "Preset": "ttda", "WeightsSHA256": "ab" * 32},
        "Software": {"biascorr_pydra": "9.8"},
    }
    said = boilerplate([Result(T2W, "ubc_ttda", record=record, sidecar=about)])
    text = " ".join(said.sentences)
    assert "The T2w image was corrected for intensity non-uniformity with ubc (Perez-Caballero et al. 2024)" in text
    assert (
        "biascorr_pydra 9.8 (preset ttda, weights with SHA-256 abababababab…), within a brain mask by deepbet (Fisch"
        in text
    )
    assert "accepted it" in text and "segmented with atropos (Avants et al. 2011) on the acquired image" in text
    assert [reference.key for reference in said.references] == ["fisch2024", "perezcaballero2024", "avants2011b"]
    rejected = record | {"gate": gate("rejected", applied="none")}
    text = " ".join(boilerplate([Result(T2W, "n4", record=rejected)]).sentences)
    assert "rejected the field, and the image was passed on unchanged" in text
    instead = record | {"gate": gate("rejected", applied="n4")}
    assert "corrected by n4 instead" in " ".join(boilerplate([Result(T2W, "ubc", record=instead)]).sentences)
    assert boilerplate([Result(T2W, "n4", state="failed", reason="x")]).sentences == []
