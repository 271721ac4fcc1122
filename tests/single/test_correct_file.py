"""One image between files: the field that was not divided out, strictness, and all files or none."""

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_phantom

from biascorr_pydra import correct_file, correct_image
from biascorr_pydra.errors import InvalidParameterError, OutputError, OutputExistsError, RejectedFieldError
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.single import rejected_file_beside

#: So few iterations find next to nothing: the field is negligible, and the image left as it is.
NEGLIGIBLE = {"method": "n4", "options": {"iterations": (1,)}}
COMMAND = ("--method", "n4", "--set", "iterations=[1]")


@pytest.fixture
def flat_file(tmp_path):
    nifti.save(make_phantom(strength=1e-9).image(), tmp_path / "flat.nii.gz")
    return tmp_path / "flat.nii.gz"


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_field_that_is_not_divided_out_is_kept(tmp_path, flat_file):
    record = correct_file(flat_file, tmp_path / "out.nii.gz", bias_file=tmp_path / "bias.nii.gz", **NEGLIGIBLE)
    assert record.gate["verdict"] == "negligible"
    kept = nifti.load(tmp_path / "out_rejected-biasfield.nii.gz")
    expected = correct_image(nifti.load(flat_file), **NEGLIGIBLE).rejected
    np.testing.assert_array_equal(kept.get_fdata(), expected.get_fdata())
    assert record.rejected_field["max"] <= kept.get_fdata().max() and kept.get_fdata().std() > 0
    assert (nifti.load(tmp_path / "bias.nii.gz").get_fdata() == 1).all()
    np.testing.assert_array_equal(kept.affine, nifti.load(flat_file).affine)


def test_it_goes_where_it_is_sent(tmp_path, flat_file):
    correct_file(flat_file, tmp_path / "out.nii.gz", rejected_file=tmp_path / "kept.nii", **NEGLIGIBLE)
    assert names_in(tmp_path) == {"flat.nii.gz", "out.nii.gz", "kept.nii"}


def test_what_an_earlier_call_kept_goes_when_the_field_is_divided_out(tmp_path, flat_file):
    correct_file(flat_file, tmp_path / "out.nii.gz", **NEGLIGIBLE)
    with pytest.raises(OutputExistsError):
        correct_file(flat_file, tmp_path / "out.nii.gz", **NEGLIGIBLE)
    record = correct_file(flat_file, tmp_path / "out.nii.gz", gate=False, overwrite=True, **NEGLIGIBLE)
    assert record.rejected_field is None and record.gate["next_steps"] == []
    assert names_in(tmp_path) == {"flat.nii.gz", "out.nii.gz"}


def test_a_file_that_was_named_for_the_field_stays_when_there_is_none(tmp_path, flat_file):
    (tmp_path / "mine.nii").write_bytes(b"of somebody")
    asked = {"rejected_file": tmp_path / "mine.nii", "gate": False, "overwrite": True}
    correct_file(flat_file, tmp_path / "out.nii.gz", **asked, **NEGLIGIBLE)
    assert (tmp_path / "mine.nii").read_bytes() == b"of somebody"


def test_strict_is_an_error_once_all_is_written(tmp_path, flat_file):
    with pytest.raises(RejectedFieldError, match="the field by n4 is negligible") as raised:
        correct_file(flat_file, tmp_path / "out.nii.gz", strict=True, **NEGLIGIBLE)
    assert "field_sd" in str(raised.value) and "--no-gate" in str(raised.value) and raised.value.file == str(flat_file)
    assert names_in(tmp_path) == {"flat.nii.gz", "out.nii.gz", "out_rejected-biasfield.nii.gz"}
    with pytest.raises(RejectedFieldError):
        correct_image(nifti.load(flat_file), strict=True, **NEGLIGIBLE)
    correct_file(flat_file, tmp_path / "out.nii.gz", strict=True, gate=False, overwrite=True, **NEGLIGIBLE)


def test_the_command_says_what_to_do_and_ends_with_3_if_it_is_strict(tmp_path, flat_file):
    out_file = tmp_path / "out.nii.gz"
    lenient = CliRunner().invoke(cli, ["correct", str(flat_file), str(out_file), *COMMAND])
    assert lenient.exit_code == 0, lenient.output
    assert f"is in {rejected_file_beside(out_file)}; --report PAGE.html shows it." in lenient.output
    assert "with the same command and --overwrite:" in lenient.output and "  - --no-gate divides" in lenient.output
    out_file.unlink()
    rejected_file_beside(out_file).unlink()
    strict = CliRunner().invoke(cli, ["correct", str(flat_file), str(out_file), *COMMAND, "--strict"])
    assert strict.exit_code == 3 and "--strict was given" in strict.output
    assert out_file.exists() and rejected_file_beside(out_file).exists()
    advised = CliRunner().invoke(
        cli, ["correct", str(flat_file), str(out_file), *COMMAND, "--strict", "--no-gate", "--overwrite"]
    )
    assert advised.exit_code == 0 and "What you can do" not in advised.output


@pytest.mark.parametrize(
    ("page", "error", "words"),
    [
        ("out.nii.gz", InvalidParameterError, "a name of its own"),
        ("page.txt", OutputError, "must end in .html or .htm"),
        ("nowhere/page.html", OutputError, "the output folder does not exist"),
        ("old.html", OutputExistsError, "the output exists"),
    ],
)
def test_a_page_that_cannot_be_written_stops_the_call_before_any_work(tmp_path, flat_file, page, error, words):
    (tmp_path / "old.html").write_text("old")
    with pytest.raises(error, match=words):
        correct_file(flat_file, tmp_path / "out.nii.gz", report_file=tmp_path / page)
    assert names_in(tmp_path) == {"flat.nii.gz", "old.html"} and (tmp_path / "old.html").read_text() == "old"


def test_a_contrast_has_its_name_in_bids(tmp_path, flat_file):
    with pytest.raises(InvalidParameterError, match=r"'t1w'\. Give one of T1w, .*FLAIR"):
        correct_file(flat_file, tmp_path / "out.nii.gz", suffix="t1w")
    assert names_in(tmp_path) == {"flat.nii.gz"}
