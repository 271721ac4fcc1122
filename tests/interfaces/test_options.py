"""One list of options: every face has them all, under the same names, with the same defaults, choices and help."""

import inspect
from dataclasses import fields

import click
import pytest
from pydra.utils import get_fields

from biascorr_pydra import correct_file, correct_image
from biascorr_pydra.cohort.correction import SHARED, Settings
from biascorr_pydra.correction.options import DEFAULTS, FILE_HELP, CorrectionOptions, choices_of, help_of
from biascorr_pydra.interfaces.cli import bench, correct, normalize
from biascorr_pydra.interfaces.cli.fields import sentence
from biascorr_pydra.interfaces.pydra.cohort import CorrectBids
from biascorr_pydra.interfaces.pydra.shell import CorrectBiasShell
from biascorr_pydra.interfaces.pydra.study import EvaluateAbide
from biascorr_pydra.interfaces.pydra.tasks import CorrectBias
from biascorr_pydra.interfaces.pydra.workflow import BiasCorrection
from biascorr_pydra.methods.spec import MethodSpec
from biascorr_pydra.resources import DEVICES

OPTIONS = [option.name for option in fields(CorrectionOptions)]
#: An option whose value is not one that a command line can hold is given there as a file.
AS_FILES = {"uncertainty": "uncertainty_file", "metadata": "metadata_file"}
#: Several methods are named METHOD[:PRESET] each, so that a preset goes with its method; their parameters, the series
#: and sidecars are those of single images, and the further estimates are asked for of single images, too.
OF_ONE_IMAGE = {"preset", "options", "average_frames", "check_response", "uncertainty", "strict", "metadata"}


def inputs_of(task):
    return {field.name: field for field in get_fields(task)}


def default_of(field):
    return field.default() if isinstance(field.default, type) else field.default


def parameters_of(function):
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize(
    ("function", "spelled"), [(correct_image, {}), (correct_file, {"uncertainty": "uncertainty_file"})]
)
@pytest.mark.parametrize("name", OPTIONS)
def test_python(function, spelled, name):
    default = parameters_of(function)[spelled.get(name, name)]
    assert default == (None if name in spelled else getattr(DEFAULTS, name))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_command(name):
    flag = "--set" if name == "options" else "--" + AS_FILES.get(name, name).replace("_", "-")
    (option,) = (option for option in correct.correct.params if flag in option.opts)
    parsed = correct.correct.make_context("correct", ["in.nii", "out.nii"]).params[option.name]
    nothing = {"options": {}, "uncertainty": None}  # no pairs, no file
    assert parsed == nothing.get(name, getattr(DEFAULTS, name))
    assert tuple(getattr(option.type, "choices", ())) == choices_of(name)
    if name != "options":
        assert option.help == sentence(help_of(name))


def test_the_command_has_no_other_options():
    names = {option.name for option in correct.correct.params if isinstance(option, click.Option)}
    named = {"uncertainty_file" if name == "uncertainty" else name for name in OPTIONS}
    files = {"mask_file", "weight_file", "bias_file", "record_file", "rejected_file", "report_file"}
    assert names == named | files | {"suffix", "overwrite", "verbose"}


@pytest.mark.parametrize("task", [CorrectBias, BiasCorrection])
@pytest.mark.parametrize("name", OPTIONS)
def test_pydra(task, name):
    field = inputs_of(task)[name]
    assert default_of(field) == getattr(DEFAULTS, name)
    assert field.help == help_of(name)
    assert set(field.allowed_values or ()) == set(choices_of(name))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_shell_task(name):
    inputs, outputs = inputs_of(CorrectBiasShell), inputs_of(CorrectBiasShell.Outputs)
    if name == "uncertainty":  # the command is asked for it by the name of its file
        assert default_of(outputs["uncertainty_file"]) is None
        return
    field = inputs[AS_FILES.get(name, name)]
    assert default_of(field) == getattr(DEFAULTS, name)
    assert field.help == help_of(name)
    assert set(field.allowed_values or ()) == set(choices_of(name))


def test_the_shell_task_spells_its_options_as_the_command_does():
    fields_by_name = {**inputs_of(CorrectBiasShell), **inputs_of(CorrectBiasShell.Outputs)}
    options = {option.name: option for option in correct.correct.params}
    assert "--metadata-file" in options["metadata"].opts
    spelled = {"metadata": "metadata_file"}
    pydras = {"executable", "append_args", "return_code", "stdout", "stderr"}
    names = {spelled.get(name, name) for name in options} - {"overwrite", "verbose"}
    assert names == set(fields_by_name) - pydras
    for name, option in options.items():
        field = fields_by_name.get(spelled.get(name, name))
        if isinstance(option, click.Option) and field is not None and name != "options":
            # The field that was not divided out is looked for where the command keeps it by itself.
            assert name == "rejected_file" or field.argstr in option.opts


@pytest.mark.parametrize("name", FILE_HELP)
def test_files_are_told_of_alike(name):
    for task in (CorrectBias, CorrectBiasShell):
        assert {**inputs_of(task), **inputs_of(task.Outputs)}[name].help == help_of(name)


@pytest.mark.nipype
@pytest.mark.parametrize("name", OPTIONS)
def test_nipype(name):
    from nipype.interfaces.base import isdefined

    from biascorr_pydra.interfaces.nipype.interfaces import CorrectBias as NipypeCorrectBias
    from biascorr_pydra.interfaces.nipype.n4 import BiascorrN4

    inputs = NipypeCorrectBias().inputs
    if name == "device":  # by which Nipype's plugins know a node that takes a GPU
        assert not inputs.use_gpu and not inputs.use_cuda
        return
    default = getattr(DEFAULTS, name)
    value = getattr(inputs, name)
    assert not isdefined(value) if default is None else value == default
    assert inputs.trait(name).desc == help_of(name)
    if name in ("seed", "gate", "fallback"):
        standin = BiascorrN4().inputs
        assert getattr(standin, name) == default and standin.trait(name).desc == help_of(name)


@pytest.mark.nipype
def test_nipypes_workflow():
    from biascorr_pydra.interfaces.nipype.workflow import init_bias_correction_wf

    parameters = parameters_of(init_bias_correction_wf)
    assert {name: parameters[name] for name in OPTIONS if name in parameters} == {
        name: getattr(DEFAULTS, name) for name in ("method", "preset", "gate", "fallback")
    }


@pytest.mark.parametrize("task", [CorrectBids, EvaluateAbide])
@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in OF_ONE_IMAGE])
def test_cohorts(task, name):
    field = inputs_of(task)[name]
    if name == "method":  # a cohort is corrected by the default method, a study by several, where none is named
        assert field.default is None
    else:
        assert field.default == getattr(DEFAULTS, name)


def test_settings_of_cohorts(tmp_path):
    """They hold the options themselves; those that a run offers are all that are not of one image or one method."""
    assert Settings(tmp_path, tmp_path / "out", (MethodSpec("n4"),)).options == DEFAULTS
    assert set(SHARED) == set(OPTIONS) - OF_ONE_IMAGE - {"method"}


@pytest.mark.parametrize("command", [correct.correct, normalize.normalize, normalize.normalize_cohort, bench.bench])
def test_devices_are_the_same_everywhere(command):
    (option,) = (option for option in command.params if option.name == "device")
    assert tuple(option.type.choices) == DEVICES == choices_of("device")


# --- METHOD:PRESET wherever a method is named


def test_a_cohort_takes_a_method_with_its_preset():
    spec = MethodSpec.parse("n4:antspy")
    assert (spec.method, spec.preset, str(spec)) == ("n4", "antspy", "n4:antspy")


def test_resources_and_cache_keys_of_a_method_with_its_preset(phantom_file):
    from biascorr_pydra.interfaces.pydra import needs
    from biascorr_pydra.interfaces.pydra.tasks import method_implementation

    plain, preset = (CorrectBias(in_file=phantom_file, method=method) for method in ("n4", "n4:antspy"))
    assert needs.for_correction(plain) == needs.for_correction(preset)
    assert method_implementation("n4:antspy") == method_implementation("n4")
