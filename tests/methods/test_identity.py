"""Cached results follow a method's version and weights, those of its fallback, and those of what it runs inside."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from biascorr_pydra.errors import BrokenMethodError
from biascorr_pydra.methods import Corrector, get_corrector, inner_corrector, method_names
from biascorr_pydra.methods.identity import identity, implementation, weights_sha256
from biascorr_pydra.methods.n4.corrector import N4


def test_a_new_version_of_n4_makes_results_of_deepem_stale_too(monkeypatch):
    before = {name: implementation(name) for name in method_names()}
    monkeypatch.setattr(N4, "version", "another")
    changed = {name for name in method_names() if implementation(name) != before[name]}
    assert changed == {"n4", "deepem"}
    assert implementation("ubc", "n4:antspy") != before["ubc"]


def test_identity_names_version_weights_and_what_runs_inside(tmp_path):
    assert identity(get_corrector("n4")) == f"n4 {N4.version} no weights"
    deepem = get_corrector("deepem")
    sha256 = weights_sha256(deepem)
    assert identity(deepem) == f"deepem {deepem.version} {sha256} (runs n4 {N4.version} no weights)"
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"other weights")
    assert weights_sha256(deepem.from_options(weights_file=str(own))) != sha256


def test_methods_that_run_each_other_in_a_circle_are_refused(monkeypatch):
    monkeypatch.setattr(N4, "runs", ("deepem",))
    with pytest.raises(BrokenMethodError, match="n4 > deepem > n4"):
        identity(N4)


@dataclass(frozen=True)
class Outer(Corrector):
    """A method that declares n4 and no other."""

    name: ClassVar[str] = "outer"
    runs: ClassVar[tuple[str, ...]] = ("n4",)

    def estimate(self, scan, *, device="cpu", seed=0):
        raise NotImplementedError


def test_a_method_gets_the_methods_that_it_declares_and_no_other():
    assert inner_corrector(Outer(), "n4", "antspy", bins=100) == N4.from_options("antspy", bins=100)
    with pytest.raises(BrokenMethodError, match="'outer' does not declare"):
        inner_corrector(Outer(), "ubc")
