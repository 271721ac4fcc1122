"""What CorrectionOptions takes, refuses, and makes of METHOD:PRESET."""

from dataclasses import FrozenInstanceError, fields

import pytest

from biascorr_pydra.correction.correct import correct_image
from biascorr_pydra.correction.options import DEFAULTS, CorrectionOptions, choices_of, help_of
from biascorr_pydra.errors import InvalidParameterError, UnknownMethodError
from biascorr_pydra.methods.spec import MethodSpec
from biascorr_pydra.resources import DEVICES


def test_every_option_has_a_help_and_cannot_be_changed():
    assert all(help_of(option.name) for option in fields(CorrectionOptions))
    assert choices_of("device") == DEVICES and choices_of("seed") == ()
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.seed = 3


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("method", 3, "the name of a method"),
        ("preset", 3, "the name of a preset"),
        ("options", [("bins", 3)], "a mapping of parameters' names to values"),
        ("device", "tpu", "one of auto, cpu, cuda"),
        ("seed", 1.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("gate", "no", "True or False"),
        ("average_frames", None, "True or False"),
        ("fallback", None, "'none', or the name of a method"),
        ("metadata", "sidecar.json", "a mapping, as in a BIDS sidecar"),
    ],
)
def test_a_value_that_is_not_allowed_is_told_with_those_that_are(name, value, allowed):
    with pytest.raises(InvalidParameterError) as caught:
        CorrectionOptions(**{name: value})
    assert f"option {name} is {allowed}" in str(caught.value) and f"Got: {value!r}" in str(caught.value)


def test_a_preset_is_given_with_the_method_or_by_itself():
    both = [CorrectionOptions("n4:antspy"), CorrectionOptions("n4", "antspy"), CorrectionOptions("n4:antspy", "antspy")]
    assert len({(options.method, options.preset) for options in both}) == 1
    assert both[0].corrector() == MethodSpec("n4", "antspy").corrector()
    assert CorrectionOptions("n4:antspy", options={"bins": 100}).corrector().bins == 100
    with pytest.raises(InvalidParameterError, match=r"given once.*method 'n4:antspy' and preset 'ants'.*'n4' with one"):
        CorrectionOptions("n4:antspy", "ants")


def test_a_method_that_there_is_not_is_told_when_it_is_asked_for():
    with pytest.raises(UnknownMethodError, match="'n5'"):
        CorrectionOptions("n5:antspy").corrector()
    with pytest.raises(InvalidParameterError, match=r"no preset of that name.*'best'"):
        CorrectionOptions("n4:best").corrector()
    with pytest.raises(InvalidParameterError, match=r"no preset of that name.*'best'"):
        CorrectionOptions(fallback="n4:best").fallback_corrector()
    assert DEFAULTS.fallback_corrector() is None


def test_the_preset_named_with_the_method_is_used_and_recorded(phantom):
    mask = phantom.image(phantom.brain)
    together = correct_image(phantom.image(), method="n4:antspy", mask=mask, options={"iterations": (2,)})
    apart = correct_image(phantom.image(), method="n4", preset="antspy", mask=mask, options={"iterations": (2,)})
    assert (together.bias.get_fdata() == apart.bias.get_fdata()).all()
    assert (together.correction.method, together.correction.preset) == ("n4", "antspy")
