"""The do-no-harm gate: fields known to be right, wrong, absurd or none, and what becomes of the image."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import make_phantom, reorient
from forked import PYDRA, program

from biascorr_pydra import report
from biascorr_pydra.bids.signs import Signs, signs_of_correction
from biascorr_pydra.cohort import status
from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.errors import BiasCorrError, InvalidImageError, InvalidParameterError, UnknownMethodError
from biascorr_pydra.images import nifti
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Corrector, Estimate
from biascorr_pydra.methods.identity import implementation
from biascorr_pydra.quality import LIMITS, decide, field_numbers, judge
from biascorr_pydra.single import correct_file

WORKFLOW = Path(__file__).parents[2] / "workflows" / "correct_bids.py"


def verdict(phantom, bias):
    return judge(phantom.acquired, bias.astype(np.float32), phantom.brain, (4.0,) * 3)


def rough(phantom):
    steps = np.indices(phantom.bias.shape).sum(0) // 3 % 2
    return phantom.bias * np.where(steps, 1.5, 1)


# --- one field


def test_the_true_field_is_accepted(phantom):
    judged = verdict(phantom, phantom.bias)
    assert judged.verdict == "accepted" and judged.reasons == () and judged.applies
    assert all(check["passed"] for check in judged.checks.values())
    assert judged.checks["support"]["value"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("scale", [0.3, 40])
def test_the_scale_of_image_and_field_does_not_matter(phantom, scale):
    numbers = field_numbers(phantom.acquired, phantom.bias, phantom.brain, (4.0,) * 3)
    scaled = field_numbers(phantom.acquired * scale, phantom.bias * scale, phantom.brain, (4.0,) * 3)
    assert scaled == pytest.approx(numbers, abs=0.02)


@pytest.mark.parametrize(
    ("wrong", "number"),
    [
        (lambda p: p.bias**12, "field_range"),
        (rough, "curvature"),
        (rough, "gradient_per_mm"),
        (lambda p: 1 / p.bias, "sharpening"),
        (lambda p: p.bias[:, ::-1], "sharpening"),
        (lambda p: 1 / p.bias, "support"),
        (lambda p: p.bias**2.2, "support"),
    ],
)
def test_wrong_fields_are_rejected_with_the_number_that_tells(phantom, wrong, number):
    judged = verdict(phantom, wrong(phantom))
    assert judged.verdict == "rejected" and not judged.applies
    assert not judged.checks[number]["passed"] and any(number in reason for reason in judged.reasons)


def test_a_field_that_takes_the_contrast_with_it_is_rejected(phantom):
    # Divided by itself, an image has no bias left, and no tissues either.
    judged = verdict(phantom, np.maximum(phantom.acquired, 50) ** 0.6)
    assert judged.verdict == "rejected" and not judged.checks["contrast_change"]["passed"]


@pytest.mark.parametrize("strength", [0, 1e-3])
def test_no_field_to_speak_of_is_negligible(phantom, strength):
    judged = verdict(phantom, phantom.bias**strength)
    assert judged.verdict == "negligible" and "hardly varies" in judged.reasons[0]


def test_a_weak_field_that_does_not_sharpen_is_negligible_and_a_strong_one_rejected():
    numbers = {"field_range": 1.2, "gradient_per_mm": 0, "curvature": 0, "support": 1, "contrast_change": 0}
    numbers["sharpening"] = LIMITS["sharpening"].value - 0.01
    assert decide({**numbers, "field_sd": 0.05}).verdict == "negligible"
    assert decide({**numbers, "field_sd": 0.2}).verdict == "rejected"
    numbers["sharpening"] = LIMITS["sharpening"].value + 0.01
    assert decide({**numbers, "field_sd": 0.05}).verdict == "accepted"


def test_of_a_field_that_its_method_does_not_invent_only_evidence_against_it_counts():
    numbers = {"field_range": 1.2, "gradient_per_mm": 0, "curvature": 0, "contrast_change": 0, "field_sd": 0.05}
    neither = {**numbers, "sharpening": 0.01, "support": 0.5}
    assert decide(neither).verdict == "negligible" and decide({**neither, "field_sd": 0.2}).verdict == "rejected"
    judged = decide(neither, invents=0.03)
    assert judged.verdict == "accepted" and judged.checks["field_sd"]["weak below"] == 0.03
    assert judged.checks["support"]["least"] < 0.5 and judged.checks["sharpening"]["least"] == 0
    for number, value in (("sharpening", -0.01), ("support", 0.4), ("curvature", 1), ("contrast_change", -0.5)):
        against = decide({**neither, number: value}, invents=0.03)
        assert against.verdict == "rejected" and number in against.reasons[0]
    weak = {**neither, "support": 1, "field_sd": 0.02}
    assert decide(weak, invents=0.03).verdict == "negligible"
    assert decide({**weak, "sharpening": 0.1}, invents=0.03).verdict == "accepted"


def test_whole_numbers_do_not_make_a_correction_look_like_blurring(phantom):
    few = np.round(phantom.acquired / 25)  # 40 grey levels
    judged = judge(few, phantom.bias, phantom.brain, (4.0,) * 3)
    assert judged.verdict == "accepted"
    exact = field_numbers(phantom.acquired, phantom.bias, phantom.brain, (4.0,) * 3)["sharpening"]
    assert 0.3 * exact < judged.checks["sharpening"]["value"] <= exact


def test_too_few_voxels_are_not_judged(phantom):
    few = np.zeros_like(phantom.brain)
    few[20:26, 20:26, 20:26] = True
    judged = judge(phantom.acquired, phantom.bias, few, (4.0,) * 3)
    assert judged.verdict == "not judged" and judged.applies and "too few" in judged.reasons[0]


# --- whole corrections


@dataclass(frozen=True)
class Given(Corrector):
    """A method whose field is given, whatever the image."""

    name: ClassVar[str] = "given"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "a given field"
    references: ClassVar[tuple] = ()
    log_bias: ClassVar[np.ndarray]

    def estimate(self, scan, *, device="cpu", seed=0):
        # Its record has a name that n4 reads from its own: what follows a fallback is the fallback's alone.
        return Estimate(self.log_bias.astype(np.float32), {"rescale_to": (0.0, 1.0)})


@pytest.fixture
def given(monkeypatch):
    def known(name):
        return Given if name == "given" else get_corrector(name)

    monkeypatch.setattr("biascorr_pydra.methods.spec.get_corrector", known)
    return Given


@pytest.fixture
def masked(phantom):
    return {"mask": phantom.image(phantom.brain, np.uint8)}


def test_n4_is_accepted_where_there_is_a_field_and_not_where_there_is_none(phantom):
    assert correct_image(phantom.image(), method="n4").correction.gate["verdict"] == "accepted"
    flat = make_phantom(strength=1e-9)
    output = correct_image(flat.image(), method="n4")
    assert output.correction.gate["verdict"] == "rejected" and output.correction.gate["applied"] == "none"
    assert (output.bias.get_fdata() == 1).all()
    np.testing.assert_array_equal(output.corrected.get_fdata(), flat.acquired)
    assert any("passed on as it is" in warning for warning in output.correction.warnings)
    assert output.correction.field == {"min": 1, "p05": 1, "p95": 1, "max": 1}
    off = correct_image(flat.image(), method="n4", gate=False)
    assert off.bias.get_fdata().std() > 0.03  # what it had invented
    assert off.correction.gate["verdict"] == "not judged" and not off.correction.gate["judged"]
    assert "switched off" in off.correction.gate["reasons"][0]


def test_negligible_fields_leave_the_image_as_it_is():
    flat = make_phantom(strength=1e-9)
    output = correct_image(flat.image(), mask=flat.image(flat.brain, np.uint8))
    assert output.correction.gate["verdict"] == "negligible"
    assert (output.bias.get_fdata() == 1).all()
    np.testing.assert_array_equal(output.corrected.get_fdata(), flat.acquired)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "oblique"])
def test_the_fallback_takes_the_place_of_a_rejected_field(phantom, masked, given, monkeypatch, codes):
    wrong = reorient(phantom.image(-np.log(phantom.bias)), codes).get_fdata()
    monkeypatch.setattr(given, "log_bias", wrong, raising=False)
    img, mask = reorient(phantom.image(), codes), reorient(masked["mask"], codes)
    output = correct_image(img, mask=mask, method="given", fallback="n4:antspy")
    gate = output.correction.gate
    assert (gate["verdict"], gate["fallback"], gate["applied"]) == ("rejected", "n4:antspy", "n4")
    assert gate["fallback_verdict"]["verdict"] == "accepted"
    assert any("corrected by n4 instead" in warning for warning in output.correction.warnings)
    direct = correct_image(img, mask=mask, method="n4", preset="antspy")
    np.testing.assert_array_equal(output.bias.get_fdata(), direct.bias.get_fdata())
    np.testing.assert_array_equal(output.corrected.get_fdata(), direct.corrected.get_fdata())


def test_a_fallback_that_is_rejected_too_leaves_the_image_as_it_is(given, monkeypatch):
    flat = make_phantom(strength=1e-9)
    monkeypatch.setattr(given, "log_bias", make_phantom().bias, raising=False)
    output = correct_image(flat.image(), method="given", fallback="n4")
    assert output.correction.gate["applied"] == "none" and (output.bias.get_fdata() == 1).all()
    assert output.correction.gate["fallback_verdict"]["verdict"] == "rejected"


def test_the_fallback_takes_the_place_of_a_method_that_refuses_the_image(phantom, masked, given, monkeypatch):
    def refuse(self, scan, *, device="cpu", seed=0):
        raise InvalidImageError("a brain is found", value="3 voxels")

    monkeypatch.setattr(given, "estimate", refuse)
    with pytest.raises(InvalidImageError, match="a brain is found"):
        correct_image(phantom.image(), method="given", **masked)
    output = correct_image(phantom.image(), method="given", fallback="n4", **masked)
    gate = output.correction.gate
    assert (gate["verdict"], gate["applied"], output.correction.estimate) == ("rejected", "n4", {})
    assert "refused the image, by the rule that a brain is found (3 voxels)" in gate["reasons"][0]
    direct = correct_image(phantom.image(), method="n4", **masked)
    np.testing.assert_array_equal(output.corrected.get_fdata(), direct.corrected.get_fdata())
    # Without the gate, the stand-in is not judged either.
    flat = make_phantom(strength=1e-9)
    bare = correct_image(flat.image(), method="given", fallback="n4", gate=False)
    assert bare.correction.gate["applied"] == "n4" and bare.bias.get_fdata().std() > 0.03
    # How uncertain a field is that there is not, nobody can say.
    with pytest.raises(InvalidImageError, match="a brain is found"):
        correct_image(phantom.image(), method="given", fallback="n4", uncertainty=True, **masked)


def test_a_fallback_that_refuses_the_image_leaves_it_as_it_is(phantom, masked, given, monkeypatch):
    def refuse(self, scan, *, device="cpu", seed=0):
        raise InvalidImageError("a brain is found", value="3 voxels")

    monkeypatch.setattr(given, "estimate", refuse)
    flat = make_phantom(strength=1e-9)
    output = correct_image(flat.image(), method="n4", fallback="given")
    assert output.correction.gate["applied"] == "none" and (output.bias.get_fdata() == 1).all()
    assert "refused the image" in output.correction.gate["fallback_verdict"]["reasons"][0]


def test_only_what_was_measured_is_known_to_invent_little():
    deepem = get_corrector("deepem")
    assert deepem().invents_at_most() == deepem.invents == 0.03
    assert deepem(smoothness=0).invents_at_most() is None and get_corrector("n4")().invents_at_most() is None


def test_a_field_that_nothing_can_be_divided_by(phantom, masked, given, monkeypatch):
    broken = np.log(phantom.bias)
    broken[3, 3, 3] = np.nan
    monkeypatch.setattr(given, "log_bias", broken, raising=False)
    output = correct_image(phantom.image(), method="given", **masked)
    assert output.correction.gate["verdict"] == "rejected" and (output.bias.get_fdata() == 1).all()
    with pytest.raises(BiasCorrError, match="not positive and finite"):
        correct_image(phantom.image(), method="given", gate=False, **masked)


def test_wrong_fallbacks(phantom):
    with pytest.raises(UnknownMethodError, match="'n5'"):
        correct_image(phantom.image(), fallback="n5")
    with pytest.raises(InvalidParameterError, match="no preset"):
        correct_image(phantom.image(), fallback="n4:best")


def test_the_cache_key_follows_the_fallback_and_the_gate():
    assert "gate 2" in implementation("n4")
    assert implementation("n4", "ubc") != implementation("n4") != implementation("n4", "ants-n4")


# --- on request


def test_a_method_that_does_not_look_at_the_image_does_not_respond(phantom, masked, given, monkeypatch):
    monkeypatch.setattr(given, "log_bias", np.log(phantom.bias), raising=False)
    gate_record = correct_image(phantom.image(), method="given", check_response=True, **masked).correction.gate
    assert gate_record["verdict"] == "rejected" and gate_record["checks"]["response"]["value"] == 0
    n4 = correct_image(phantom.image(), method="n4", check_response=True, **masked).correction.gate
    assert n4["verdict"] == "accepted" and n4["checks"]["response"]["value"] > 0.4


def test_uncertainty_is_the_deviation_over_the_image_and_its_mirror_images(tmp_path, phantom, given, monkeypatch):
    # The given field stays where it is when the image is mirrored: the four are the field and its three mirror images.
    log_bias = np.log(phantom.bias).astype(np.float32)
    monkeypatch.setattr(given, "log_bias", log_bias, raising=False)
    nifti.save(phantom.image(), tmp_path / "in.nii.gz")
    nifti.save(phantom.image(phantom.brain, np.uint8), tmp_path / "mask.nii.gz")
    record = correct_file(
        tmp_path / "in.nii.gz",
        tmp_path / "out.nii.gz",
        method="given",
        mask_file=tmp_path / "mask.nii.gz",
        uncertainty_file=tmp_path / "u.nii.gz",
    )
    four = [log_bias, *(np.flip(log_bias, axis) for axis in range(3))]
    expected = np.std([one - one[phantom.brain].mean() for one in four], axis=0, ddof=1)
    np.testing.assert_allclose(nifti.load(tmp_path / "u.nii.gz").get_fdata(), expected, atol=1e-5)
    assert record.gate["verdict"] == "rejected" and not record.gate["checks"]["flip_disagreement"]["passed"]


# --- signs of an earlier correction


def test_signs_in_the_metadata():
    assert signs_of_correction({}) == Signs()
    signs = signs_of_correction({"ImageType": ["ORIGINAL", "NORM", "DIS3D"]})
    assert "NORM" in signs.intensity[0] and "DIS3D" in signs.geometry[0]
    assert "NORM" in signs_of_correction({"ImageType": "ORIGINAL\\PRIMARY\\M\\NORM"}).intensity[0]
    assert signs_of_correction({"ImageType": 3}) == Signs()
    assert "divided out" in signs_of_correction({"FieldScaledOver": "given mask"}).intensity[0]


def test_the_sidecar_beside_the_image_is_read(tmp_path, phantom_file):
    def gate(text):
        (tmp_path / "phantom.json").write_text(text)
        record = correct_file(phantom_file, tmp_path / "out.nii.gz", method="n4", overwrite=True)
        return record.gate["already_corrected"], record.warnings

    signs, warnings = gate('{"ImageType": ["NORM", "DIS2D"]}')
    assert len(signs) == 2 and signs[0] in warnings and signs[1] not in warnings
    signs, warnings = gate("{")
    assert signs == [] and any("phantom.json cannot be read" in warning for warning in warnings)


# --- a cohort


@pytest.mark.slow
def test_a_cohort_goes_on_past_a_rejected_field_and_says_so(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for subject, strength in (("01", 0.15), ("02", 1e-9)):
        folder = raw / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        nifti.save(make_phantom(strength=strength).image(), folder / f"sub-{subject}_T1w.nii.gz")
    (raw / "T1w.json").write_text('{"ImageType": ["ORIGINAL", "NORM"]}')
    (raw / "dataset_description.json").write_text('{"Name": "p", "BIDSVersion": "1.11.0"}')
    words = ["run", str(WORKFLOW), "--bids-dir", str(raw), "--out-dir", str(out), "--worker", "debug"]
    words += ["--method", "n4", "--skull-strip", "none", "--segmentation", "none"]
    done = program(PYDRA, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 done, 0 done before, 0 failed. 1 rejected by the gate." in done.stdout
    assert "REJECTED  sub-02/anat/sub-02_T1w.nii.gz  n4" in done.stderr
    rows, _ = status.now(out)
    assert [row.state for row in rows] == ["done", "rejected"]
    assert "did not sharpen" in rows[1].reason and "passed on as it is" in rows[1].reason
    stem = out / "n4/sub-02/anat/sub-02"
    assert (nifti.load(f"{stem}_desc-T1w_biasfield.nii.gz").get_fdata() == 1).all()
    kept = nifti.load(f"{stem}_desc-T1wrejected_biasfield.nii.gz").get_fdata()
    about = json.loads(Path(f"{stem}_desc-T1wrejected_biasfield.json").read_text())
    assert kept.std() > 0.01 and about["FieldSummary"]["max"] == pytest.approx(kept.max(), rel=1e-3)
    assert not (out / "n4/sub-01/anat/sub-01_desc-T1wrejected_biasfield.nii.gz").exists()
    assert "(rejected, not divided out)" in (out / "reports/sub-02_T1w.html").read_text()
    sidecar = json.loads(Path(f"{stem}_desc-preproc_T1w.json").read_text())
    assert sidecar["Gate"]["verdict"] == "rejected" and "as it is" in sidecar["Description"]
    assert sum("NORM" in warning for warning in sidecar["Warnings"]) == 1
    assert "NORM" in sidecar["Gate"]["already_corrected"][0]
    metrics = json.loads(Path(f"{stem}_desc-T1w_metrics.json").read_text())
    assert metrics["gate"]["checks"]["sharpening"]["passed"] is False
    head, *lines = [line.split("\t") for line in (out / "metrics.tsv").read_text().splitlines()]
    table = [dict(zip(head, line, strict=True)) for line in lines]
    assert [(row["state"], row["verdict"], row["applied"]) for row in table] == [
        ("done", "accepted", "n4"),
        ("rejected", "rejected", "none"),
    ]
    page = (out / "report.html").read_text()
    assert ">rejected</td>" in page and "the histogram did not sharpen" in page
    assert report.is_up_to_date(out)
