"""The contract of biascorr_pydra.methods.corrector, which every registered method fulfils, a plug-in's too."""

import ast
import json
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import make_phantom, reorient

import biascorr_pydra.methods
from biascorr_pydra.correction.estimate import estimate, scan_on_grid
from biascorr_pydra.errors import BiasCorrError, InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods import Reference, Scan, get_corrector, method_names
from biascorr_pydra.methods.identity import identity

FOLDER = Path(biascorr_pydra.methods.__file__).parent
METHODS = [*method_names(), "polynomial"]
#: They refuse what is no head, as the phantom is; their own tests have heads.
HEADS_ONLY = {"deepem"}
VOXEL_MM = 3.0
FIELDS = [name for name in METHODS if name not in HEADS_ONLY]


@pytest.fixture
def method(request, plugin):
    """A corrector class; the plug-in of docs/plugin_example among them."""
    return get_corrector(request.param)


def every(names):
    return pytest.mark.parametrize("method", names, indirect=True)


@cache
def small():
    return make_phantom((30, 34, 28), VOXEL_MM)  # half a head's size: some networks work on millimetres


def scan_of(phantom, mask=True, scale=1.0):
    data = (phantom.acquired * scale).astype(np.float32)
    return Scan(data, np.ones(data.shape, bool), phantom.brain if mask else None, (VOXEL_MM,) * 3)


def field_of(corrector, phantom, **options):
    log_bias, _ = estimate(corrector, phantom.affine, scan_of(phantom, **options), device="cpu", seed=3)
    return log_bias


@every(METHODS)
def test_facts_are_stated(method):
    assert method.name in METHODS and method.version and method.summary
    assert "\n" not in method.summary and len(method.summary) < 120
    assert method.references and all(isinstance(reference, Reference) for reference in method.references)
    assert method.memory_gb > 0 and method.bytes_per_voxel > 0
    assert all(name in method_names() and name != method.name for name in method.runs)
    assert identity(method).startswith(f"{method.name} {method.version} ")


@every(METHODS)
def test_presets_are_made_and_others_refused(method):
    assert method.presets
    first = next(iter(method.presets))
    assert method.from_options() == method.from_options(first)
    for preset in method.presets:
        made = method.from_options(preset)
        assert type(made) is method and hash(made) == hash(method.from_options(preset))
    for wrong in ({"preset": "of nobody"}, {"of_nobody": 1}):
        with pytest.raises(InvalidParameterError, match=method.name):
            method.from_options(**wrong)


@every(METHODS)
def test_parameters_are_json_and_have_help(method):
    for preset in method.presets:
        parameters = method.from_options(preset).parameters()
        assert set(json.loads(json.dumps(parameters))) == {parameter.name for parameter in fields(method)}
    for parameter in fields(method):
        assert parameter.metadata["help"].endswith("."), parameter.name


@every(FIELDS)
def test_the_same_scan_and_seed_give_the_same_bytes(method, one_thread):
    scan = scan_on_grid(method(), small().affine, scan_of(small()))
    before = scan.data.copy(), scan.mask.copy()
    control_points = []
    for _ in range(2):
        estimated = method().estimate(scan, device="cpu", seed=3)
        assert json.dumps(dict(estimated.record))
        log_bias = estimated.log_bias
        control_points.append(log_bias.control_points if isinstance(log_bias, LogBiasSpline) else log_bias)
        assert isinstance(log_bias, LogBiasSpline) or log_bias.shape == scan.data.shape
        assert np.isfinite(control_points[-1]).all()
    assert control_points[0].tobytes() == control_points[1].tobytes()
    assert np.array_equal(scan.data, before[0]) and np.array_equal(scan.mask, before[1])  # a scan is not written to


@every([name for name in FIELDS if name not in {"ants-n4"}])
def test_the_unit_of_the_intensities_does_not_matter(method, one_thread):
    one, thousand = (field_of(method(), small(), scale=scale) for scale in (1.0, 1000.0))
    difference = (one - thousand)[small().brain]
    assert difference.std() < 2e-3


@every(METHODS)
@pytest.mark.parametrize("empty", ["mask", "image"])
def test_nothing_to_go_by_gives_a_field_or_an_error_of_ours(method, empty):
    """Methods that look beyond the mask may answer; any that cannot says so in this package's words."""
    phantom = small()
    scan = scan_of(phantom, scale=0.0 if empty == "image" else 1.0)
    if empty == "mask":
        scan = replace(scan, mask=np.zeros_like(phantom.brain))
    try:
        log_bias, _ = estimate(method(), phantom.affine, scan, device="cpu", seed=0)
    except BiasCorrError as error:
        assert error.rule
    else:
        assert log_bias.shape == scan.data.shape and np.isfinite(log_bias).all()


@every(["n4", "polynomial"])
@pytest.mark.parametrize("codes", ["LPS", "ASR"])
def test_orientation_makes_no_difference(method, codes):
    phantom = small()
    img, brain = phantom.image(), phantom.image(phantom.brain, np.uint8)
    turned, turned_brain = reorient(img, codes), reorient(brain, codes)
    fields_of_both = []
    for image, mask in ((img, brain), (turned, turned_brain)):
        data, mask_data = np.asarray(image.dataobj, np.float32), np.asarray(mask.dataobj) > 0
        scan = Scan(data, np.ones(data.shape, bool), mask_data, nifti.voxel_size_mm(image))
        log_bias, _ = estimate(method(), image.affine, scan, device="cpu", seed=0)
        back = reorient(nifti.save_like(log_bias.astype(np.float32), image), "RAS")
        fields_of_both.append(np.asarray(back.dataobj))
    difference = (fields_of_both[0] - fields_of_both[1])[phantom.brain]
    assert difference.std() < 0.01


def test_methods_ask_for_no_other_method_but_as_declared():
    """No module of a method takes another from the registry; those that run one declare it, and get it from `inner`."""
    for file in FOLDER.glob("*/*.py"):
        tree = ast.parse(file.read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not names & {"get_corrector", "registry"}, file
        if "inner_corrector" in names:
            assert get_corrector(file.parent.name.replace("_", "-")).runs, file
