"""A metric is declared once: a toy one is seen everywhere without another edit, and wrong declarations are refused."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from conftest import make_phantom
from written_cohort import BEFORE, T1W, Page, read_table, write_scan, write_status

from biascorr_pydra import metrics
from biascorr_pydra.bench import Case, compare_methods, score, summarize
from biascorr_pydra.bench.columns import columns
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.methods.corrector import Corrector, Estimate
from biascorr_pydra.metrics import METRICS, metric
from biascorr_pydra.quality import measure
from biascorr_pydra.report import write_design, write_report
from biascorr_pydra.report.collect import collect
from biascorr_pydra.report.paths import scan_page
from biascorr_pydra.report.scan import write_scan_pages
from biascorr_pydra.report.study.write import write_evaluation

SHAPE = (12, 12, 12)


@pytest.fixture
def toy():
    """Two metrics that are declared here and nowhere else."""

    @metric(
        "toy",
        group="image",
        direction="lower",
        reference="nobody",
        label="Toy ratio",
        definition="max_WM / mean_GM",
        shown=True,
        headline=True,
        compared=True,
        judged=("before", "after"),
        bench_text="a ratio",
    )
    def ratio(data, gm, wm):
        return float(data[wm].max() / data[gm].mean())

    @metric("toy_score", group="score", direction="lower", reference="nobody", definition="|mean|", bench="toy_score")
    def mean_difference(log_bias, true_log_bias, mask):
        return float(abs(log_bias[mask].mean() - true_log_bias[mask].mean()))

    yield METRICS["toy"]
    del METRICS["toy"], METRICS["toy_score"]


@pytest.fixture
def tissues():
    """Gray matter 100, white matter 200 and once 300."""
    data, dseg = np.full(SHAPE, 100.0), np.ones(SHAPE, int)
    data[6:], dseg[6:] = 200, 2
    data[6, 0, 0] = 300
    return data, dseg


def write_cohort(out):
    """Twelve scans by two methods, of which the eleventh has an odd toy."""
    for number in range(12):
        scan = T1W.replace("01", f"{number + 1:02}")
        for method, factor in (("n4", 0.5), ("ubc", 0.75)):
            before = {**BEFORE, "toy": 4.0 + 0.01 * number + 5 * (number == 10)}
            record = {"before": before, "after": {key: factor * value for key, value in before.items()}}
            write_scan(out, scan, method, metrics=record)
    write_status(out)


def test_a_metric_is_in_the_metrics_file(toy, tissues):
    data, dseg = tissues
    record = measure(data, data / 2, np.full(SHAPE, 2.0), dseg > 0, dseg, (1.0,) * 3)
    assert record["own_before"]["toy"] == record["own_after"]["toy"] == 3
    nothing = measure(data, data / 2, np.full(SHAPE, 2.0), dseg > 0, None, (1.0,) * 3, no_dseg_reason="not asked for")
    assert nothing["own_before"]["toy"] is None and nothing["undefined"]["own_after.toy"] == "not asked for"
    scores = metrics.field_scores(np.full(SHAPE, np.e), np.ones(SHAPE), dseg > 0)
    assert scores["toy_score"] == pytest.approx(1)


def test_a_metric_is_in_the_report(toy, tmp_path):
    write_cohort(tmp_path)
    paths = write_report(tmp_path, scan_pages=False)
    rows, dictionary = read_table(paths.metrics_tsv), json.loads(paths.metrics_json.read_text())
    assert (rows[0]["toy_before"], rows[0]["toy_after"]) == ("4.0", "2.0")
    assert dictionary["toy_after"] == {
        "LongName": "Toy ratio, the corrected image, on the judge's tissue",
        "Description": "max_WM / mean_GM",
        "Units": "1",
        "Direction": "lower",
        "Reference": "nobody",
    }
    assert float(rows[20]["z_toy_before"]) > 3.5
    page = Page(paths.html)
    assert "Toy ratio: lower is better." in page.text and "Toy ratio before is high: 9.1" in page.text
    assert "Toy ratio fell from a median of" in page.text
    assert '"before:toy"' in page.source


def test_a_metric_is_on_the_page_of_a_scan(toy, tmp_path):
    write_scan(tmp_path, metrics={"before": {"toy": 4.0}, "after": {"toy": 2.0}})
    write_status(tmp_path)
    write_scan_pages(collect(tmp_path), n_procs=1)
    page = Page(scan_page(tmp_path, T1W))
    assert "Toy ratio" in page.text and "−50.0%" in page.text


def test_a_metric_is_in_the_evaluation(toy, tmp_path):
    write_cohort(tmp_path)
    scans = [
        {"folder": "", "scan": T1W.replace("01", f"{number + 1:02}"), "participant_id": f"sub-{number}", "site": "A"}
        for number in range(12)
    ]
    scans = [{**scan, "source": "folder"} for scan in scans]
    write_design(tmp_path, {"study": "toys", "methods": ["n4", "ubc"], "scans": scans, "problems": []})
    paths = write_evaluation(tmp_path)
    assert read_table(paths.table("scans"))[0]["toy_after"] == "2"
    row = next(row for row in read_table(paths.table("sites")) if row["metric"] == "toy")
    assert (row["method"], row["reference"], row["n_fell"]) == ("n4", "before", "12")
    assert "Toy ratio, n4 against before: lower by" in paths.markdown.read_text()


@dataclass(frozen=True)
class Nothing(Corrector):
    """Finds no field."""

    name: ClassVar[str] = "nothing"
    version: ClassVar[str] = "1"

    def estimate(self, scan, *, device="cpu", seed=0):
        return Estimate(np.zeros(scan.data.shape, np.float32))


def test_a_metric_is_in_the_bench(toy):
    phantom = make_phantom((24, 26, 22), voxel_mm=8.0)
    log_k = np.broadcast_to(np.linspace(-0.1, 0.1, 26, dtype=np.float32)[None, :, None], (24, 26, 22))
    facts = {"dataset": "d", "scan": "s", "head": "h", "contrast": "T1w", "field": "smooth", "draw": 0}
    case = Case(phantom.acquired, np.ones(log_k.shape, bool), phantom.affine, (8.0,) * 3, phantom.brain, "truth", log_k,
                np.log(phantom.bias), phantom.dseg, facts)  # fmt: skip
    row = score(Nothing(), case)
    assert row["toy"] == row["toy_before"] == pytest.approx(toy.function(case.data, case.dseg == 1, case.dseg == 2))
    assert row["toy_score"] == pytest.approx(abs(case.log_bias[case.brain].mean()), rel=1e-5)
    assert columns()["toy_before"] == "a ratio, acquired" and "toy_score" in columns()
    rows = pd.DataFrame([{**facts, "method": method, "mask": "none", **row} for method in ("n4", "other")])
    assert summarize(rows)["toy_median"].iloc[0] == row["toy"]
    assert "toy" in set(compare_methods(rows)["metric"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": "images"}, "a metric's group is one of image, field, score, comparison"),
        ({"direction": "down"}, "a direction is one of lower, higher, one, none"),
        ({"group": "field"}, "a metric of the group field is computed from bias, mask"),
        ({"judged": ("field",)}, "a metric of the group image is judged by before, after, change"),
        ({"group": "comparison", "judged": ("before",)}, "is judged by nothing"),
    ],
)
def test_wrong_declarations_are_refused(changes, message):
    declaration = {"group": "image", "direction": "lower", "reference": "nobody", "definition": "none"} | changes
    with pytest.raises(InvalidParameterError, match=message):
        metric("wrong", **declaration)(lambda data, wm: 0.0)
    assert "wrong" not in METRICS


def test_a_name_is_declared_once():
    with pytest.raises(InvalidParameterError, match="a metric is declared once"):
        metric("cjv", group="image", direction="lower", reference="x", definition="x")(lambda data: 0.0)


def test_what_is_not_known_leaves_a_metric_out_and_not_undefined(tissues):
    data, dseg = tissues
    known = metrics.image_metrics(data, dseg == 1, dseg == 2, voxel_size_mm=(1, 1, 1))
    assert "cnr" not in known and "cnr" not in known["undefined"]
    nothing = metrics.undefined_image_metrics("why")
    assert set(nothing) == set(known) and set(nothing["undefined"].values()) == {"why"}
