"""The page of a scan outside any cohort, and fields that were not divided out, on its page and on a cohort's."""

import nibabel as nib
import numpy as np
import pytest
from written_cohort import AFFINE, BEFORE, SHAPE, T1W, Page, gate, write_scan

from biascorr_pydra.images import nifti
from biascorr_pydra.report.collect import collect
from biascorr_pydra.report.paths import scan_page
from biascorr_pydra.report.scan import page_of_one, write_scan_pages

REJECTED = "n4/sub-01/ses-1/anat/sub-01_ses-1_desc-T1wrejected_biasfield.nii.gz"

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture
def rejected(out):
    """A T1w whose field, brighter towards the right, was rejected."""
    judged = gate("rejected", "no support") | {"next_steps": ["--no-gate divides it out."]}
    write_scan(out, after=BEFORE, metrics={"gate": judged})
    x = np.linspace(-1, 1, SHAPE[0])[:, None, None]
    nifti.save(nib.Nifti1Image(np.exp(0.4 * x) * np.ones(SHAPE, np.float32), AFFINE), out / REJECTED)
    nifti.save(nib.Nifti1Image(np.ones(SHAPE, np.float32), AFFINE), out / REJECTED.replace("rejected", ""))
    return out


def made(out):
    write_scan_pages(collect(out), n_procs=1)
    return Page(scan_page(out, T1W))


def test_a_scan_alone_has_its_pictures_inside(rejected, tmp_path):
    (result,) = collect(rejected).results
    before = sorted(rejected.rglob("*"))
    html = page_of_one(result)
    assert sorted(rejected.rglob("*")) == before
    (tmp_path / "alone.html").write_text(html)
    page = Page(tmp_path / "alone.html")
    assert page.images() and all(attributes["src"].startswith("data:image/") for attributes in page.images())
    assert "cohort" not in page.text and "Get figure file" not in page.text
    assert not [a for tag, a in page.tags if tag == "a" and not a["href"].startswith(("#", "data:"))]


def test_a_field_that_was_not_divided_out_is_shown_in_its_colors(rejected, tmp_path):
    (result,) = collect(rejected).results
    (tmp_path / "alone.html").write_text(page_of_one(result))
    page = Page(tmp_path / "alone.html")
    assert "field, n4 (rejected, not divided out)" in page.text
    assert "What you can do:--no-gate divides it out." in page.text
    picture = page.picture("Field of", "not divided out")
    axial = picture[: picture.shape[0] // 4, : picture.shape[1] // 3]
    redness = (axial[..., 0] - axial[..., 2]) * (axial.sum(-1) > 200)
    half = axial.shape[1] // 2
    assert redness[:, :half].sum() < 0 < redness[:, half:].sum()  # dark at the left, bright at the right


def test_a_cohorts_page_shows_it_too(rejected):
    page = made(rejected)
    assert "field, n4 (rejected, not divided out)" in page.text
    (shown,) = (a for a in page.images() if "not divided out" in a["alt"])
    assert shown["src"] == "figures/sub-01_ses-1_desc-n4rejected_T1w.jpg"
    assert (rejected / "reports" / shown["src"]).is_file()


def test_a_field_in_whose_place_another_stood_is_among_all_fields(rejected):
    judged = gate("rejected", "no support", applied="deepem")
    write_scan(rejected, after=BEFORE, metrics={"gate": judged})
    page = made(rejected)
    fields = page.text.split("All bias fields")[1]
    assert fields.split(")")[:2] == [" n4 (rejected, not divided out", " n4 (field by deepem, in its place"]
