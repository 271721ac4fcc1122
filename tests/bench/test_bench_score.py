"""Scores of correctors whose answer is known, on heads and pairs whose truth is known; summaries and tests by hand."""

from dataclasses import dataclass
from typing import ClassVar

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import make_phantom
from scipy import stats
from statsmodels.stats.multitest import multipletests

from biascorr_pydra.bench import (
    WORSE_BY,
    Case,
    case_from_image,
    compare_methods,
    heads_from_labels,
    leaderboard,
    pairs_from_images,
    score,
    score_cases,
    summarize,
)
from biascorr_pydra.bench.memory import PeakMemory
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.judge import RANKED_BY
from biascorr_pydra.methods.corrector import Corrector, Estimate
from biascorr_pydra.metrics import cjv, residual_cov

SHAPE = (24, 26, 22)


@dataclass(frozen=True)
class Knows(Corrector):
    """Finds the given part of the true field, since it knows the image without it; plus a field of its own."""

    clean: np.ndarray = None
    part: float = 1.0
    invented: float = 0.0

    name: ClassVar[str] = "knows"
    version: ClassVar[str] = "1"

    def estimate(self, scan, *, device="cpu", seed=0):
        ratio = np.where(self.clean > 0, scan.data / np.maximum(self.clean, 1e-6), 1)
        ramp = np.linspace(-1, 1, scan.data.shape[0], dtype=np.float32)[:, None, None]
        return Estimate((self.part * np.log(ratio) + self.invented * ramp).astype(np.float32))


@pytest.fixture(scope="module")
def case():
    phantom = make_phantom(SHAPE, voxel_mm=8.0, noise=0)
    rng = np.random.default_rng(1)
    log_k = 0.1 * np.linspace(-1, 1, SHAPE[1])[None, :, None] + 0.05 * np.linspace(0, 1, SHAPE[2])
    log_k = np.broadcast_to(log_k, SHAPE).astype(np.float32)
    clean = (phantom.true * rng.uniform(0.95, 1.05, SHAPE)).astype(np.float32)
    data = (clean * phantom.bias).astype(np.float32)
    brain = phantom.brain & (clean > 0)
    facts = {"dataset": "d", "scan": "s", "head": "h", "contrast": "T1w", "field": "smooth", "draw": 0}
    return clean, Case(
        data, np.ones(SHAPE, bool), phantom.affine, (8.0,) * 3, brain, "truth", log_k, np.log(phantom.bias),
        phantom.dseg, facts,
    )  # fmt: skip


def test_one_that_knows_the_field_scores_perfectly(case):
    clean, case = case
    row = score(Knows(clean), case)
    gm, wm = case.dseg == 1, case.dseg == 2
    assert row["kind"] == "truth"
    assert row["before"] == pytest.approx(residual_cov(np.ones(SHAPE), np.exp(case.log_bias), case.brain), rel=1e-6)
    assert row["before"] > 0.1
    assert row["residual_cov"] == pytest.approx(0, abs=1e-5)
    assert row["log_rmse"] == pytest.approx(0, abs=1e-5)
    assert row["slope"] == pytest.approx(1, abs=1e-5)
    assert row["worse"] is False
    assert row["cjv_before"] == pytest.approx(cjv(case.data, gm, wm))
    assert row["cjv"] == pytest.approx(cjv(clean, gm, wm), rel=1e-4)
    assert row["cjv"] < row["cjv_before"]
    assert row["undefined"] == ""


def test_one_that_finds_half_leaves_half(case):
    clean, case = case
    row = score(Knows(clean, part=0.5), case)
    inside = case.log_bias[case.brain]
    assert row["slope"] == pytest.approx(0.5, abs=1e-5)
    assert row["log_rmse"] == pytest.approx(inside.std() / 2, rel=1e-4)
    left = np.exp(-inside / 2)
    assert row["residual_cov"] == pytest.approx(left.std() / left.mean(), rel=1e-4)


def test_one_that_does_nothing_changes_nothing(case):
    clean, case = case
    row = score(Knows(clean, part=0), case, masked=True)
    assert row["residual_cov"] == row["before"]
    assert row["slope"] == 0 and row["inu_range"] == 0
    assert row["worse"] is False
    assert row["cjv"] == pytest.approx(row["cjv_before"])


def test_a_field_invented_where_there_is_none_is_worse(case):
    clean, case = case
    none = Case(**{**vars(case), "data": clean, "log_bias": np.zeros(SHAPE, np.float32)})
    for invented, worse in ((0.1, True), (WORSE_BY / 2, False)):
        row = score(Knows(clean, invented=invented), none)
        assert row["before"] == 0
        assert row["worse"] is worse
        assert row["slope"] == pytest.approx(1, abs=1e-5)


def test_a_pair_is_scored_against_the_injected_field(case):
    clean, case = case
    pair = Case(**{**vars(case), "log_bias": None, "dseg": None})
    row = score(Knows(clean, part=0.5, invented=0.3), pair)
    inside = case.log_k[case.brain].astype(float)
    assert row["kind"] == "pair"
    assert row["before"] == pytest.approx(np.exp(-inside).std() / np.exp(-inside).mean(), rel=1e-4)
    # Its own field is in both estimates, so that a pair does not see it.
    assert row["residual_cov"] == pytest.approx(np.exp(-inside / 2).std() / np.exp(-inside / 2).mean(), rel=1e-4)
    assert row["log_rmse"] == pytest.approx(inside.std() / 2, rel=1e-4)
    assert row["slope"] == pytest.approx(0.5, abs=1e-5)
    assert "cjv" not in row


def test_where_there_is_no_truth_the_judge_says_whether_it_helped():
    phantom = make_phantom(noise=0.003)
    facts = {"dataset": "d", "scan": "s", "head": "h", "contrast": "T1w", "field": "injected", "draw": 0}
    log_k = np.broadcast_to(0.1 * np.linspace(-1, 1, phantom.acquired.shape[0])[:, None, None], phantom.acquired.shape)
    pair = Case(
        phantom.acquired, np.ones(phantom.acquired.shape, bool), phantom.affine, (4.0,) * 3, phantom.brain, "given",
        log_k.astype(np.float32), facts=facts,
    )  # fmt: skip
    clean = (phantom.acquired / phantom.bias).astype(np.float32)
    for part, verdict in ((1.0, "better"), (-1.0, "worse"), (0.0, "same")):
        row = score(Knows(clean, part=part), pair)
        assert row["judge"] == verdict
        assert (row[f"judge_{RANKED_BY[0]}"] < 0) is (part > 0)
    unknown = Case(**{**vars(pair), "facts": {**facts, "contrast": "unknown"}})
    row = score(Knows(clean), unknown)
    assert row["judge"] is None and "judge: the order of the tissues' intensities is not known" in row["undefined"]
    assert "judge" not in score(Knows(clean), Case(**{**vars(pair), "brain_from": "head"}))
    summary = summarize(score_cases({"good": Knows(clean), "bad": Knows(clean, part=-1.0)}, [pair], masks=["none"]))
    shares = summary[summary["contrast"] == "all"].set_index("method")[["judged", "judge_better", "judge_worse"]]
    assert list(shares.loc["good"]) == [1, 1, 0] and list(shares.loc["bad"]) == [1, 0, 1]
    assert "| judge: better | judge: worse |" in leaderboard(summary)


def test_a_judge_that_fails_does_not_take_the_other_scores_with_it(case, monkeypatch):
    def fail(*arguments, **options):
        raise IndexError("no voxel")

    monkeypatch.setattr("biascorr_pydra.bench.scoring.judge_images", fail)
    clean, case = case
    row = score(Knows(clean), Case(**{**vars(case), "log_bias": None, "brain_from": "given"}))
    assert row["judge"] is None and "judge: the judge failed: IndexError: no voxel" in row["undefined"]
    assert np.isfinite(row["residual_cov"])


def test_peak_memory_is_what_the_work_adds():
    with PeakMemory() as memory:
        block = np.ones(64 * 2**17)  # 64 MiB
        del block
    assert 60 < memory.mib < 90
    with PeakMemory() as memory:
        pass
    assert memory.mib < 5


# --- cases


@pytest.fixture(scope="module")
def label_map(tmp_path_factory):
    """A head of five labels: skin (507), CSF (24), gray (3, 42) and white matter (2)."""
    i, j, k = np.indices((20, 22, 21)) - np.array([10, 11, 10]).reshape(3, 1, 1, 1)
    radius = np.sqrt(i**2 + j**2 + k**2)
    labels = np.select([radius < 4, radius < 6, radius < 7, radius < 9], [2, np.where(i > 0, 42, 3), 24, 507], 0)
    file = tmp_path_factory.mktemp("labels") / "seg_a.nii.gz"
    nib.save(nib.Nifti1Image(labels.astype(np.int16), np.diag([8.0, 8, 8, 1])), file)
    return file


def test_heads_are_the_same_for_a_seed_and_whatever_else_is_asked_for(label_map):
    every = {tuple(plan.facts.values()): plan for plan in heads_from_labels([label_map], shape=(16, 16, 16))}
    assert len(every) == 9
    name = ("labels", "seg_a", "whole", "FLAIR", "rough", 0)
    (alone,) = heads_from_labels([label_map], shape=(16, 16, 16), contrasts=["FLAIR"], fields=["rough"])
    assert alone.key == every[name].key
    first, again = every[name].make(), alone.make()
    assert np.array_equal(first.data, again.data) and np.array_equal(first.log_k, again.log_k)
    (other,) = heads_from_labels([label_map], shape=(16, 16, 16), contrasts=["FLAIR"], fields=["rough"], seed=1)
    assert other.key != alone.key and not np.array_equal(other.make().data, first.data)


def test_heads_bring_their_truth(label_map):
    heads = {
        (plan.facts["head"], plan.facts["field"]): plan.make()
        for plan in heads_from_labels([label_map], shape=(16, 16, 16), contrasts=["T1w"], stripped=(False, True))
    }
    assert np.ptp(heads["whole", "none"].log_bias) == pytest.approx(0, abs=1e-6)
    assert 0.03 < heads["whole", "smooth"].log_bias[heads["whole", "smooth"].brain].std() < 0.4
    assert set(np.unique(heads["whole", "none"].dseg)) == {0, 1, 2, 3}
    whole, stripped = heads["whole", "none"], heads["stripped", "none"]
    assert np.array_equal(whole.brain, stripped.brain) and np.array_equal(whole.log_k, stripped.log_k)
    assert stripped.data[~stripped.brain].mean() < 0.5 * whole.data[~whole.brain].mean()


def test_rows_of_several_correctors(label_map):
    heads = list(heads_from_labels([label_map], shape=(16, 16, 16), contrasts=["T1w"], fields=["none", "smooth"]))
    rows = score_cases(["n4"], heads)
    assert list(rows["mask"]) == ["none", "brain"] * 2
    assert list(rows["field"]) == ["none"] * 2 + ["smooth"] * 2
    assert rows["residual_cov"].notna().all() and (rows["before"][:2] == 0).all() and (rows["before"][2:] > 0.01).all()
    with pytest.raises(InvalidParameterError, match="no such mask"):
        score_cases(["n4"], heads, masks=["head"])


def test_pairs_of_files_inject_the_same_field_whatever_their_neighbours(tmp_path):
    phantom = make_phantom(SHAPE, voxel_mm=8.0)
    files = [tmp_path / name for name in ("a_T1w.nii.gz", "b_T1w.nii.gz")]
    for file in files:
        nib.save(phantom.image(), file)
    both = [plan.make() for plan in pairs_from_images(files, brain="none")]
    (alone,) = (plan.make() for plan in pairs_from_images(files[1:], brain="none"))
    assert np.array_equal(both[1].log_k, alone.log_k) and not np.array_equal(both[0].log_k, both[1].log_k)
    assert alone.log_bias is None and alone.brain_from == "head"
    in_memory = case_from_image(phantom.image(), brain="none", seed=0)
    assert np.array_equal(in_memory.brain, alone.brain)
    assert list(score_cases(["n4"], [alone])["mask"]) == ["none"]  # there is no brain mask to give


# --- summaries and tests


def made_up_rows(n=12):
    """Two methods on n heads, half of them without a field; one row has an error."""
    rng = np.random.default_rng(2)
    rows = []
    for number in range(n):
        field = ("none", "smooth")[number % 2]
        for method, offset in (("n4", 0.0), ("other", 0.02)):
            residual = 0.03 + 0.01 * rng.random() + offset
            rows.append({
                "dataset": "d", "scan": f"s{number}", "head": "whole", "contrast": "T1w", "field": field, "draw": 0,
                "method": method, "mask": "none", "kind": "truth", "before": 0.0 if field == "none" else 0.2,
                "residual_cov": residual, "slope": 1 - offset, "worse": field == "none", "error": "",
            })  # fmt: skip
    rows.append({**rows[-1], "scan": "broken", "error": "no such file", "residual_cov": None, "worse": None})
    return pd.DataFrame(rows)


def test_summaries_keep_scans_without_a_field_apart():
    rows = made_up_rows()
    summary = summarize(rows).set_index(["contrast", "fielded", "method"]).sort_index()
    entry = summary.loc[("all", "yes", "other")]
    mine = rows[(rows["method"] == "other") & (rows["field"] == "smooth") & (rows["error"] == "")]
    assert (entry["n"], entry["failed"]) == (6, 1)
    assert entry["residual_cov_mean"] == pytest.approx(mine["residual_cov"].astype(float).mean())
    assert entry["residual_cov_low"] <= entry["residual_cov_median"] <= entry["residual_cov_high"]
    assert entry["worse"] == 0 and summary.loc[("all", "no", "other")]["worse"] == 1
    text = leaderboard(summarize(rows))
    line = next(line for line in text.splitlines() if line.startswith("| `other`"))
    assert "6 + 6 (1 failed)" in line and "100%" in line and f"{entry['residual_cov_mean']:.3f}" in line


def test_methods_are_compared_on_the_same_scans():
    rows = made_up_rows()
    comparisons = compare_methods(rows).set_index(["fielded", "metric"])
    entry = comparisons.loc[("yes", "residual_cov")]
    wide = rows[(rows["field"] == "smooth") & (rows["error"] == "")].pivot(
        index="scan", columns="method", values="residual_cov"
    )
    changes = (wide["other"] - wide["n4"]).astype(float)
    assert entry["n"] == 6 and entry["losses"] == (changes > 0).sum() == 6
    assert entry["p"] == pytest.approx(stats.wilcoxon(changes).pvalue) == 2 / 2**6
    assert entry["effect_size"] == 1
    assert entry["median_change"] == pytest.approx(changes.median())
    assert entry["ci_low"] <= changes.median() <= entry["ci_high"]
    tests = comparisons[comparisons["p"].notna()]
    assert len(tests) == 4  # of residual CoV and slope, with and without a field
    assert list(tests["p_holm"]) == pytest.approx(multipletests(tests["p"], method="holm")[1])
    assert compare_methods(rows, reference="no such").empty
