"""What a user can do where a field was not divided out, in words that name the options by which it is done."""

from __future__ import annotations

from biascorr_pydra.methods import DEFAULT_METHOD, REFERENCE_METHOD
from biascorr_pydra.methods.spec import NO_FALLBACK, MethodSpec
from biascorr_pydra.quality import NEGLIGIBLE, Verdict

__all__ = ["next_steps"]


def next_steps(verdict: Verdict, *, method: str, fallback: str, masked: bool, has_field: bool) -> tuple[str, ...]:
    """Sentences, the first to be tried first; none where the field was accepted.

    Parameters
    ----------
    verdict : on the method's field
    method : whose field it is
    fallback : the method named to stand in, or "none"
    masked : whether a mask was given
    has_field : whether there is a field that could be divided out
    """
    if verdict.applies:
        return ()
    steps = []
    if verdict.verdict == NEGLIGIBLE:
        steps.append("An image without shading needs no correction. The steps below are for one in which you see it.")
    if not masked:
        steps.append(
            "Give a brain mask (--mask-file MASK of `biascorr correct`, --skull-strip auto of a cohort): "
            "the field is then estimated and judged inside it."
        )
    steps.append(_another_method(verdict, method, fallback))
    if has_field:
        steps.append("--no-gate divides the field out all the same. Look at the field first.")
    return tuple(steps)


def _another_method(verdict: Verdict, method: str, fallback: str) -> str:
    other = DEFAULT_METHOD if method == REFERENCE_METHOD else REFERENCE_METHOD
    named = "" if fallback == NO_FALLBACK else MethodSpec.parse(fallback).method
    if verdict.verdict == NEGLIGIBLE:  # for which no other method stands in
        return f"Try another method (--method {other})."
    if named:
        return "Try another method (`biascorr methods` lists them)."
    return f"--fallback {other} lets the field of {other} stand in, if that one is accepted."
