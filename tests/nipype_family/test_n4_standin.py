"""The stand-in for ANTs' N4: every input and output of Nipype's interface, honoured or refused."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.ants import N4BiasFieldCorrection
from nipype.interfaces.base import isdefined
from traits.api import TraitError

from biascorr_pydra import correct_file
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.nipype.n4 import BiascorrN4, BiascorrShiftedN4
from biascorr_pydra.methods import method_names

pytestmark = pytest.mark.nipype

VALUES = {
    "dimension": 2,
    "mask_image": "mask.nii.gz",
    "weight_image": "weight.nii.gz",
    "output_image": "other.nii.gz",
    "bspline_fitting_distance": 150.0,
    "bspline_order": 4,
    "shrink_factor": 3,
    "n_iterations": [7, 3],
    "convergence_threshold": 0.01,
    "save_bias": True,
    "bias_image": "field.nii.gz",
    "rescale_intensities": True,
    "histogram_sharpening": (0.2, 0.02, 100),
    "num_threads": 3,
    "args": "--verbose",
    "environ": {"FAKE": "1"},
    "copy_header": True,
}
# What has no bearing on the result: the header is always the input's, and threads change no byte.
WITHOUT_EFFECT = {"copy_header", "num_threads"}


def test_inputs_are_those_of_ants_interface():
    theirs, ours = N4BiasFieldCorrection.input_spec(), BiascorrN4.input_spec()
    assert set(VALUES) | {"input_image"} == set(theirs.copyable_trait_names())
    for name in theirs.copyable_trait_names():
        a, b = theirs.trait(name), ours.trait(name)
        assert type(a.trait_type) is type(b.trait_type) and a.default == b.default
        for attribute in ("mandatory", "usedefault", "xor", "requires"):
            assert getattr(a, attribute) == getattr(b, attribute)
    added = set(ours.copyable_trait_names()) - set(theirs.copyable_trait_names())
    assert all(ours.trait(name).desc for name in added)
    assert set(N4BiasFieldCorrection.output_spec().copyable_trait_names()) < set(
        BiascorrN4.output_spec().copyable_trait_names()
    )
    with pytest.raises(TraitError):
        BiascorrN4(shrinkfactor=3)


@pytest.mark.parametrize("method", method_names())
@pytest.mark.parametrize("trait", sorted(VALUES))
def test_no_trait_is_ignored(monkeypatch, tmp_path, trait, method):
    """Setting a trait changes what the method is asked for, or raises."""

    def asked(**inputs):
        call = {}
        monkeypatch.setattr("biascorr_pydra.single.correct_file", lambda *a, **k: call.update(k, images=a))
        interface = BiascorrN4(input_image=str(tmp_path / "t1w.nii.gz"), method=method, **inputs)
        interface._check_mandatory_inputs()
        return interface.compute(tmp_path), call

    needed = {"convergence_threshold": "n_iterations", "bspline_order": "bspline_fitting_distance"}
    base = {needed[trait]: VALUES[needed[trait]]} if trait in needed else {}
    try:
        plain = asked(**base)
        changed = asked(**base, **{trait: VALUES[trait]})
    except InvalidParameterError as error:
        assert trait in str(error) or base or trait == "environ"
        return
    assert (changed == plain) == (trait in WITHOUT_EFFECT)


def test_n4_honours_every_parameter(tmp_path, phantom, phantom_file, mask_file):
    nifti.save(phantom.image((phantom.dseg == 2) * 0.8 + (phantom.dseg == 1) * 0.2), tmp_path / "wm.nii.gz")
    outputs = BiascorrN4(
        input_image=phantom_file,
        mask_image=mask_file,
        weight_image=tmp_path / "wm.nii.gz",
        n_iterations=[20, 10],
        convergence_threshold=1e-4,
        shrink_factor=2,
        bspline_fitting_distance=120,
        bspline_order=3,
        histogram_sharpening=(0.2, 0.02, 150),
        rescale_intensities=True,
        save_bias=True,
        copy_header=True,
        output_image="out.nii.gz",
    ).run(cwd=str(tmp_path))
    correct_file(
        phantom_file,
        tmp_path / "expected.nii.gz",
        method="n4",
        preset="ants",
        mask_file=mask_file,
        weight_file=tmp_path / "wm.nii.gz",
        bias_file=tmp_path / "expected_bias.nii.gz",
        options={
            **{"iterations": (20, 10), "tolerance": 1e-4, "shrink_factor": 2, "spline_distance_mm": 120.0},
            **{"fwhm": 0.2, "wiener_noise": 0.02, "bins": 150, "rescale": True},
        },
    )
    assert Path(outputs.outputs.output_image).read_bytes() == (tmp_path / "expected.nii.gz").read_bytes()
    assert Path(outputs.outputs.bias_image).read_bytes() == (tmp_path / "expected_bias.nii.gz").read_bytes()
    assert json.loads(Path(outputs.outputs.record_file).read_text())["parameters"]["bins"] == 150


def test_it_agrees_with_ants(tmp_path, phantom_file):
    """The parameters of niworkflows' nodes, run by ANTs' own code and by ours."""
    wanted = {
        "n_iterations": [50] * 4,
        "convergence_threshold": 1e-7,
        "shrink_factor": 2,
        "bspline_fitting_distance": 200,
        "save_bias": True,
    }
    fields = []
    for method in ("n4", "ants-n4"):
        (tmp_path / method).mkdir()
        outputs = BiascorrN4(input_image=phantom_file, method=method, **wanted).run(cwd=str(tmp_path / method)).outputs
        fields.append(nib.load(outputs.bias_image).get_fdata())
    np.testing.assert_allclose(fields[0] / fields[0].mean(), fields[1] / fields[1].mean(), rtol=2e-3)


def test_what_is_not_set_is_as_in_ants_program(monkeypatch, tmp_path):
    call = {}
    monkeypatch.setattr("biascorr_pydra.single.correct_file", lambda *_, **k: call.update(k))
    BiascorrN4(input_image=str(tmp_path / "t1w.nii.gz")).compute(tmp_path)
    assert call["preset"] == "ants" and call["options"] == {"rescale": False} and call["bias_file"] is None


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"save_bias": True},
        {"bias_image": "field.nii.gz"},
        {"output_image": "out.nii.gz"},
        {"output_image": "pre_%s"},
        {"output_image": "pre_%s.nii"},
    ],
)
@pytest.mark.parametrize("source", ["t1w.nii.gz", "t1w.nii"])
def test_outputs_have_the_names_that_ants_interface_gives(tmp_path, phantom, inputs, source):
    nifti.save(phantom.image(), tmp_path / source)
    theirs = N4BiasFieldCorrection(input_image=str(tmp_path / source), **inputs)
    theirs._parse_inputs()
    expected = {name: Path(file).name for name, file in theirs._list_outputs().items() if isdefined(file)}
    ours = BiascorrN4(input_image=str(tmp_path / source), n_iterations=[1], **inputs).run(cwd=str(tmp_path)).outputs
    outputs = {name: Path(file) for name, file in ours.get().items() if isdefined(file) and name != "record_file"}
    assert {name: file.name for name, file in outputs.items()} == expected
    assert all(file.parent == tmp_path for file in outputs.values())


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"dimension": 4}, "three dimensions"),
        ({"bspline_fitting_distance": 200, "bspline_order": 2}, "cubic"),
        ({"args": "-v 1"}, "args"),
        ({"environ": {"OMP": "1"}}, "environment"),
        ({"n_iterations": [0]}, "iterations"),
        ({"shrink_factor": 2, "options": {"shrink_factor": 3}}, "given once"),
        ({"method": "ubc", "shrink_factor": 2}, "cannot honour shrink_factor"),
        ({"method": "ubc", "weight_image": "w.nii.gz"}, "cannot honour weight_image"),
        ({"method": "ants-n4", "rescale_intensities": True}, "cannot honour rescale_intensities"),
    ],
)
def test_what_cannot_be_honoured_is_refused(phantom_file, inputs, words):
    with pytest.raises(InvalidParameterError, match=words):
        BiascorrN4(input_image=phantom_file, **inputs).run()


def test_a_deep_method_takes_the_mask_and_sets_aside_what_it_is_told_to(tmp_path, phantom_file, mask_file):
    outputs = BiascorrN4(
        input_image=phantom_file,
        mask_image=mask_file,
        method="ubc",
        shrink_factor=2,
        weight_image="nowhere.nii.gz",
        set_aside=["shrink_factor", "weight_image"],
    ).run(cwd=str(tmp_path))
    correct_file(phantom_file, tmp_path / "expected.nii.gz", method="ubc", mask_file=mask_file, device="cpu")
    assert Path(outputs.outputs.output_image).read_bytes() == (tmp_path / "expected.nii.gz").read_bytes()


def test_options_reach_parameters_that_ants_does_not_have(monkeypatch, tmp_path):
    call = {}
    monkeypatch.setattr("biascorr_pydra.single.correct_file", lambda *_, **k: call.update(k))
    BiascorrN4(input_image=str(tmp_path / "t1w.nii.gz"), options={"default_mask": "head"}).compute(tmp_path)
    assert call["options"]["default_mask"] == "head"


@pytest.mark.parametrize("least", [-50.0, 0.0])
def test_negative_values_are_lifted_as_niworkflows_does(tmp_path, phantom, least):
    nifti.save(phantom.image(phantom.acquired + np.float32(least)), tmp_path / "t1w.nii.gz")
    lift = min(float(phantom.acquired.min() + np.float32(least)), 0.0)
    outputs = BiascorrShiftedN4(
        input_image=tmp_path / "t1w.nii.gz", save_bias=True, n_iterations=[5, 5], shrink_factor=2
    ).run(cwd=str(tmp_path))
    assert outputs.outputs.negative_values == (lift < 0)
    lifted = phantom.acquired + np.float32(least) - np.float32(lift)
    expected = lifted / nib.load(outputs.outputs.bias_image).get_fdata(dtype="float32")
    np.testing.assert_allclose(nib.load(outputs.outputs.output_image).get_fdata(), expected, rtol=1e-4, atol=1e-3)
