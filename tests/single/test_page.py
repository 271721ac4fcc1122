"""The page of one image: what is on it with a mask, without a brain, without a known contrast, of a series."""

import json

import nibabel as nib
import numpy as np
import pytest
from written_cohort import Page

from biascorr_pydra import correct_file
from biascorr_pydra.anatomy.brain import MaskFiles
from biascorr_pydra.anatomy.tissue import TissueFiles
from biascorr_pydra.errors import SegmentationError
from biascorr_pydra.images import nifti
from biascorr_pydra.metrics import image_metrics, tissue_masks
from biascorr_pydra.report.words import number
from biascorr_pydra.single import page as page_module

QUICK = {"method": "n4", "options": {"iterations": (20,)}, "gate": False}

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture
def files(phantom, tmp_path):
    """A T1w with its mask."""
    nifti.save(phantom.image(), tmp_path / "sub-01_T1w.nii.gz")
    nifti.save(phantom.image(phantom.brain, np.uint8), tmp_path / "mask.nii.gz")
    return {"in_file": tmp_path / "sub-01_T1w.nii.gz", "mask_file": tmp_path / "mask.nii.gz"}


@pytest.fixture
def segmented(phantom, monkeypatch):
    """The true tissues in place of a segmentation, and how it was asked for."""
    asked = {}

    def segment(in_file, folder, **options):
        asked.update(options, in_file=in_file.name)
        nifti.save(phantom.image(phantom.dseg, np.uint8), folder / "dseg.nii.gz")
        (folder / "tissue.json").write_text(json.dumps({"Name": "atropos", "runtime_s": 1.0, "warnings": []}))
        names = ("dseg.nii.gz", None, None, None, "tissue.json")
        return TissueFiles(*(name and folder / name for name in names))

    monkeypatch.setattr(page_module, "segment_file", segment)
    return asked


def test_a_page_shows_the_image_its_field_its_tissues_and_their_metrics(tmp_path, files, phantom, segmented):
    plain, shown = tmp_path / "plain.nii.gz", tmp_path / "shown.nii.gz"
    correct_file(out_file=plain, **files, **QUICK)
    record = correct_file(out_file=shown, report_file=tmp_path / "page.html", **files, **QUICK)
    assert shown.read_bytes() == plain.read_bytes()  # whether there is a page or not
    assert segmented["in_file"] == "corrected.nii" and segmented["suffix"] == "T1w"

    page = Page(tmp_path / "page.html")
    assert page.text.strip().startswith("sub-01_T1w: bias-field correction")
    assert "Bias-field correction of sub-01_T1w.nii.gz. " in page.text and "cohort" not in page.text
    assert "n4 ? not judgedThe field was divided out without being judged." in page.text
    assert "Own segmentation: atropos (the scan as it was corrected)" in page.text
    assert "Judge: better: " in page.text
    tissues = tissue_masks(phantom.dseg)
    for file in (files["in_file"], shown):
        data = nifti.load(file).get_fdata(dtype="float32")
        cjv = image_metrics(data, tissues["GM"], tissues["WM"], voxel_size_mm=(4.0,) * 3)["cjv"]
        assert number(cjv) in page.text
    alts = [attributes["alt"] for attributes in page.images()]
    for words in ("as acquired", "corrected by n4", "Bias field of", "outlines of brain mask", "Histograms"):
        assert any(words in alt for alt in alts), words
    assert all(attributes["src"].startswith("data:image/") for attributes in page.images())
    assert "No errors to report!" in page.text and str(tmp_path) not in page.source
    assert record.method == "n4" and "://" not in page.source.split("Methods</h2>")[0]  # nothing is loaded


def test_a_contrast_that_is_not_known_is_not_segmented_and_may_be_named(tmp_path, files, segmented):
    files["in_file"] = files["in_file"].rename(tmp_path / "head.nii.gz")
    page_file = tmp_path / "page.html"
    correct_file(out_file=tmp_path / "o.nii.gz", report_file=page_file, **files, **QUICK)
    page = Page(page_file)
    assert segmented == {}
    reason = (
        "none, because the file's name does not say the contrast ('head' is none); --suffix T1w, for instance, would"
    )
    assert f"Segmentation: {reason}" in page.text and "outlines of brain mask" in page.source
    correct_file(out_file=tmp_path / "o.nii.gz", report_file=page_file, suffix="T1w", overwrite=True, **files, **QUICK)
    assert segmented["suffix"] == "T1w" and "Own segmentation: atropos" in Page(page_file).text


def test_no_brain_is_looked_for_in_what_may_be_none(tmp_path, files, monkeypatch):
    monkeypatch.delattr(page_module, "extract_file")
    melon = files["in_file"].rename(tmp_path / "melon.nii.gz")
    correct_file(melon, tmp_path / "o.nii.gz", report_file=tmp_path / "page.html", **QUICK)
    text = Page(tmp_path / "page.html").text
    assert "No brain was looked for, because the file's name does not say the contrast ('melon' is none)" in text
    assert "in the detected head" in text and "No errors to report!" in text


def test_what_is_no_brain_is_shown_as_a_head(tmp_path, files, monkeypatch):
    def fail(*arguments, **options):
        raise SegmentationError("no brain was found", file="/tmp/x/acquired.nii", value="3.0 ml")

    monkeypatch.setattr(page_module, "extract_file", fail)
    correct_file(files["in_file"], tmp_path / "o.nii.gz", report_file=tmp_path / "page.html", **QUICK)
    page = Page(tmp_path / "page.html")
    assert "There is no brain mask: no brain was found (3.0 ml). The detected head stands for it" in page.text
    assert "segmentation by 'atropos' needs a brain mask" in page.text and "/tmp" not in page.source
    assert "as acquired" in page.source and "in the detected head" in page.text


def test_a_mask_that_was_made_for_the_page_is_not_said_to_be_the_corrections(tmp_path, files, segmented, monkeypatch):
    def brain(in_file, folder, **options):
        (folder / "brain.json").write_text(json.dumps({"Name": "deepbet", "runtime_s": 1.0, "warnings": []}))
        return MaskFiles(files["mask_file"], folder / "brain.json")

    monkeypatch.setattr(page_module, "extract_file", brain)
    correct_file(files["in_file"], tmp_path / "o.nii.gz", report_file=tmp_path / "page.html", **QUICK)
    text = Page(tmp_path / "page.html").text
    assert "The correction was made without a mask" in text and "for the page, by deepbet." in text
    assert "without a brain mask" in text  # in the methods' text


def test_of_a_series_the_mean_frame_is_shown(tmp_path, files, phantom, segmented):
    frames = np.stack([0.9 * phantom.acquired, 1.1 * phantom.acquired], axis=3)
    nifti.save(nib.Nifti1Image(frames, phantom.affine), files["in_file"])
    correct_file(
        out_file=tmp_path / "o.nii.gz", report_file=tmp_path / "page.html", average_frames=True, **files, **QUICK
    )
    page = Page(tmp_path / "page.html")
    tissues = tissue_masks(phantom.dseg)
    cjv = image_metrics(phantom.acquired, tissues["GM"], tissues["WM"], voxel_size_mm=(4.0,) * 3)["cjv"]
    assert number(cjv) in page.text and "No errors to report!" in page.text
    assert nifti.load(tmp_path / "o.nii.gz").shape == frames.shape


def test_a_judge_that_fails_costs_only_its_part_of_the_page(tmp_path, files, segmented, monkeypatch):
    def fail(*arguments, **options):
        raise IndexError("index 0 is out of bounds")

    monkeypatch.setattr(page_module, "judge_one", fail)
    record = correct_file(out_file=tmp_path / "o.nii.gz", report_file=tmp_path / "page.html", **files, **QUICK)
    page = Page(tmp_path / "page.html")
    assert "not judged: the judge failed: IndexError: index 0 is out of bounds" in page.text
    assert "as acquired" in page.source and "Own segmentation: atropos" in page.text
    assert (tmp_path / "o.nii.gz").exists() and not any("page" in warning for warning in record.warnings)


def test_a_page_that_cannot_be_made_does_not_lose_the_correction(tmp_path, files, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError("division by <zero>")

    monkeypatch.setattr(page_module, "measure_file", fail)
    out_file, page_file, record_file = (tmp_path / name for name in ("o.nii.gz", "page.html", "record.json"))
    melon = files["in_file"].rename(tmp_path / "melon.nii.gz")
    correct_file(melon, out_file, report_file=page_file, record_file=record_file, **QUICK)
    plain = correct_file(melon, tmp_path / "plain.nii.gz", **QUICK)
    reason = "The page that shows the correction cannot be made: ZeroDivisionError: division by <zero>."
    assert out_file.read_bytes() == (tmp_path / "plain.nii.gz").read_bytes()
    assert (
        Page(page_file).text.strip().endswith(f"melon.nii.gz: no page melon.nii.gz The image was corrected. {reason}")
    )
    assert json.loads(record_file.read_text())["warnings"] == [*plain.warnings, reason]
