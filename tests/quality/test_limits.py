"""The gate's limits and the verdicts that follow from numbers: each limit at its value and just beyond it."""

import pytest

from biascorr_pydra.bids.signs import Signs
from biascorr_pydra.quality import LIMITS, Verdict, decide, not_judged

#: Of a field to which there is no objection.
GOOD = {
    "field_sd": 0.15,
    "field_range": 2.0,
    "gradient_per_mm": 0.01,
    "curvature": 0.03,
    "sharpening": 0.2,
    "support": 0.9,
    "contrast_change": 0.0,
    "flip_disagreement": 0.1,
    "response": 0.9,
}
#: Name, the last value that is kept, the first that is not, and what is said.
EDGES = [
    ("field_range", 10.0, 10.01, "the field's range is absurd (field_range 10, at most 10)"),
    ("gradient_per_mm", 0.03, 0.0301, "the field is too steep for a bias field (gradient_per_mm 0.0301, at most 0.03)"),
    ("curvature", 0.12, 0.1201, "the field is too rough for a bias field (curvature 0.12, at most 0.12)"),
    ("flip_disagreement", 0.5, 0.501, "the image and its mirror images give different fields"),
    ("response", 0.2, 0.199, "the method does not respond to a known extra field (response 0.199, at least 0.2)"),
    ("sharpening", 0.07, 0.0699, "the histogram did not sharpen (sharpening 0.0699, at least 0.07)"),
    ("support", 0.55, 0.549, "the image does not bear the field out (support 0.549, at least 0.55)"),
    ("contrast_change", -0.25, -0.251, "contrast fell (contrast_change -0.251, at least -0.25)"),
]
NAMES = [name for name, *_ in EDGES]


@pytest.mark.parametrize(("name", "kept", "beyond", "reason"), EDGES, ids=NAMES)
def test_each_limit_is_kept_at_its_value_and_broken_beyond_it(name, kept, beyond, reason):
    at = decide({**GOOD, name: kept})
    assert (at.verdict, at.reasons, at.checks[name]["passed"]) == ("accepted", (), True)
    assert at.checks[name]["most" if beyond > kept else "least"] == kept
    over = decide({**GOOD, name: beyond})
    assert over.verdict == "rejected" and not over.applies
    assert len(over.reasons) == 1 and over.reasons[0].startswith(reason)
    assert [key for key, check in over.checks.items() if not check["passed"]] == [name]


def test_every_limit_has_its_edge_here():
    assert list(LIMITS) == NAMES


@pytest.mark.parametrize("name", NAMES[:5])
def test_an_absurd_number_is_told_before_all_else(name):
    beyond = {key: value for key, _, value, _ in EDGES}
    weak = {**GOOD, "field_sd": 0.001, "sharpening": 0.0, "support": 0.0, name: beyond[name]}
    verdict = decide(weak)
    assert verdict.verdict == "rejected" and len(verdict.reasons) == 1 and name in verdict.reasons[0]


@pytest.mark.parametrize("name", NAMES[5:])
def test_what_is_not_absurd_does_not_matter_where_there_is_no_field(name):
    beyond = {key: value for key, _, value, _ in EDGES}
    assert decide({**GOOD, "field_sd": 0.009, name: beyond[name]}).verdict == "negligible"


def test_reasons_are_all_given_in_the_order_of_the_limits():
    verdict = decide({**GOOD, "support": 0.1, "sharpening": -0.5, "contrast_change": -0.9})
    assert [next(name for name in NAMES if name in reason) for reason in verdict.reasons] == NAMES[5:]
    verdict = decide({**GOOD, "response": 0.0, "field_range": 99.0, "support": 0.1})
    assert [next(name for name in NAMES if name in reason) for reason in verdict.reasons] == ["field_range", "response"]


def test_a_field_of_less_than_one_percent_is_negligible():
    nothing, little = decide({**GOOD, "field_sd": 0.0099}), decide({**GOOD, "field_sd": 0.01})
    assert nothing.verdict == "negligible" and not nothing.applies and not nothing.checks["field_sd"]["passed"]
    assert nothing.reasons == ("the field hardly varies (field_sd 0.0099, negligible below 0.01)",)
    assert little.verdict == "accepted" and little.checks["field_sd"]["passed"]
    assert little.checks["field_sd"] == {"value": 0.01, "negligible below": 0.01, "weak below": 0.1, "passed": True}


def test_a_weak_field_that_does_not_sharpen_is_negligible():
    dull = {**GOOD, "sharpening": 0.06}
    weak = decide({**dull, "field_sd": 0.099})
    assert weak.verdict == "negligible" and "field_sd 0.099, weak below 0.1; sharpening 0.06, at least 0.07" in str(
        weak.reasons
    )
    assert decide({**dull, "field_sd": 0.1}).verdict == "rejected"
    # Whatever else is wrong with it; but one that sharpens must have the image's support like any other.
    assert decide({**dull, "field_sd": 0.05, "support": 0.0, "contrast_change": -0.9}).verdict == "negligible"
    assert decide({**GOOD, "field_sd": 0.05, "support": 0.0}).verdict == "rejected"


def test_a_weak_field_that_blurs_is_wrong_and_not_negligible():
    weak = {**GOOD, "field_sd": 0.05}
    assert decide({**weak, "sharpening": -0.0199}).verdict == "negligible"
    assert decide({**weak, "sharpening": -0.02}).verdict == "rejected"


def test_from_the_strongest_field_that_a_method_invents_on_only_evidence_against_it_counts():
    neither = {**GOOD, "sharpening": 0.0, "support": 0.45}
    assert decide({**neither, "field_sd": 0.03}, invents=0.03).verdict == "accepted"
    assert decide({**neither, "field_sd": 0.0299}, invents=0.03).verdict == "negligible"
    assert decide({**neither, "field_sd": 0.15}).verdict == "rejected"
    for changes, reason in (
        ({"sharpening": -0.0001}, "the histogram was blurred (sharpening -0.0001, at least 0)"),
        ({"support": 0.449}, "the image speaks against the field (support 0.449, at least 0.45)"),
    ):
        for strength in (0.05, 0.15):  # neither is weak: no method was seen to invent that much
            verdict = decide({**neither, **changes, "field_sd": strength}, invents=0.03)
            assert (verdict.verdict, verdict.reasons) == ("rejected", (reason,))
    for name, _, beyond, _ in EDGES:
        if name not in ("sharpening", "support"):
            assert decide({**neither, name: beyond}, invents=0.03).verdict == "rejected"


@pytest.mark.parametrize("name", ["support", "contrast_change", "response", "flip_disagreement"])
def test_what_is_not_known_is_not_held_against_a_field(name):
    for numbers in ({**GOOD, name: None}, {key: value for key, value in GOOD.items() if key != name}):
        verdict = decide(numbers)
        assert verdict.verdict == "accepted" and name not in verdict.checks


def test_values_are_recorded_with_five_decimals():
    checks = decide({**GOOD, "support": 0.87654321, "field_sd": 0.12345678}).checks
    assert (checks["support"]["value"], checks["field_sd"]["value"]) == (0.87654, 0.12346)


def test_which_verdicts_apply_and_what_is_recorded():
    assert {name: Verdict(name).applies for name in ("accepted", "negligible", "rejected", "not judged")} == {
        "accepted": True,
        "negligible": False,
        "rejected": False,
        "not judged": True,
    }
    signs = Signs(intensity=("NORM",), geometry=("DIS3D",))
    assert decide(GOOD, signs=signs).already_corrected == ("NORM", "DIS3D")
    record = not_judged("switched off", signs).as_dict()
    assert record == {
        "verdict": "not judged",
        "reasons": ["switched off"],
        "checks": {},
        "already_corrected": ["NORM", "DIS3D"],
    }
