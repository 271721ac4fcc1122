"""What is advised where a field was not divided out."""

from biascorr_pydra.correction.advice import next_steps
from biascorr_pydra.quality import Verdict

REJECTED = Verdict("rejected", ("no support",))


def advice(verdict=REJECTED, *, method="ubc", fallback="none", masked=True, has_field=True):
    return " ".join(next_steps(verdict, method=method, fallback=fallback, masked=masked, has_field=has_field))


def test_nothing_is_advised_where_a_field_was_divided_out():
    assert advice(Verdict("accepted")) == advice(Verdict("not judged")) == ""


def test_a_mask_is_advised_where_there_was_none():
    text = advice(masked=False)
    assert "--mask-file MASK of `biascorr correct`" in text and "--skull-strip auto of a cohort" in text
    assert "mask" not in advice()


def test_the_fallback_that_is_advised_is_another_method():
    assert "--fallback n4" in advice() and "--fallback deepem" in advice(method="n4")
    again = advice(fallback="n4:antspy")
    assert "--fallback" not in again and "biascorr methods" in again


def test_a_field_is_divided_out_all_the_same_only_where_there_is_one():
    assert "--no-gate" in advice() and "--no-gate" not in advice(has_field=False)


def test_a_negligible_field_is_first_of_all_no_fault():
    text = advice(Verdict("negligible"))
    assert text.startswith("An image without shading needs no correction.")
    assert "--fallback" not in text  # nothing stands in for a negligible field
