"""The group report, made from a small cohort of written files whose numbers are known."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from biascorr_pydra import image
from biascorr_pydra.cli import cli
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.metrics import METRICS
from biascorr_pydra.report import write_report
from biascorr_pydra.report.collect import Result, collect
from biascorr_pydra.report.table import Change, tally

AFFINE = np.array([[2.0, 0, 0, -20], [0, 2, 0, -24], [0, 0, 4, -18], [0, 0, 0, 1]])
SHAPE = (20, 24, 12)
T1W = "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
T2W = "sub-02/anat/sub-02_T2w.nii.gz"
BEFORE = {"cjv": 0.8, "cv_wm": 0.1, "cv_gm": 0.2, "wm_gm_contrast": 0.125}


def volumes():
    """Corrected image, field and mask; the field's mean over the mask is 1, and every voxel differs from its mirror."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    mask = x**2 + y**2 + z**2 < 0.7
    bias = np.exp(0.3 * x + 0.1 * y)
    corrected = 500 + 200 * y + 100 * z + 50 * x**2 + 30 * x
    return corrected * (x**2 + y**2 + z**2 < 0.9), bias / bias[mask].mean(), mask


def write_scan(out, scan=T1W, method="n4", *, after=None, codes="RAS", metrics=None):
    """One method's files for one scan, as the cohort writes them; returns the metrics record."""
    folder = out / method / scan.rsplit("/", 1)[0]
    folder.mkdir(parents=True, exist_ok=True)
    (out / method / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.11.0"}')
    stem, suffix = scan.rsplit("/", 1)[1].removesuffix(".nii.gz").rsplit("_", 1)
    space = "" if suffix == "T1w" else f"_space-{suffix}"
    names = f"{stem}_desc-preproc_{suffix}", f"{stem}_desc-{suffix}_biasfield", f"{stem}{space}_desc-brain_mask"
    for data, name in zip(volumes(), names, strict=True):
        img = nib.Nifti1Image(np.asarray(data, np.float32), AFFINE)
        there = nib.orientations.axcodes2ornt(codes)
        img = img.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(AFFINE), there))
        image.save(img, folder / f"{name}.nii.gz")
    about = {"Method": {"Name": method, "Version": "3", "Parameters": {"spline_mm": 200.0}}, "SourceSHA256": "ab"}
    (folder / f"{names[0]}.json").write_text(json.dumps(about))
    record = {
        "source": f"bids:raw:{scan}",
        "suffix": suffix,
        "method": method,
        "method_version": "3",
        "before": BEFORE,
        "after": {"cjv": 0.6, "cv_wm": 0.07, "cv_gm": 0.2, "wm_gm_contrast": 0.15} | (after or {}),
        "field": {"inu_range": 0.31, "inu_med": 0.99, "field_min": 0.7, "field_max": 1.0 / 3},
        "undefined": {},
        "segmentation": {"method": "atropos", "image": "the acquired image"},
        "runtime_s": {"skull_strip": 11.5, "correct": 2.25, "segmentation": 30.0},
        "warnings": [],
    }
    record |= metrics or {}
    (folder / f"{stem}_desc-{suffix}_metrics.json").write_text(json.dumps(record))
    return record


def write_status(out, *rows):
    with open(out / "status.tsv", "w", newline="") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(
            [("scan", "method", "state", "reason"), *rows]
        )


@pytest.fixture
def out(tmp_path):
    return tmp_path


@pytest.fixture
def cohort(out):
    """Two methods on a T1w, where the second makes CJV worse; a T2w where the second failed."""
    records = {
        (T1W, "n4"): write_scan(out),
        (T1W, "ubc"): write_scan(out, method="ubc", after={"cjv": 0.9, "cv_gm": 0.20001}),
        (T2W, "n4"): write_scan(
            out, T2W, metrics={"after": BEFORE | {"cjv": None}, "undefined": {"after.cjv": "<why>"}}
        ),
    }
    reason = 'sub-02_T2w.nii.gz: "bad" <script>alert(1)</script>'
    write_status(out, *[(*key, "done", "n/a") for key in records], (T2W, "ubc", "failed", reason))
    return records


def read_table(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


class Page(HTMLParser):
    """The tags of a page, its text, and its pictures."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]

    def picture(self, *words):
        """The first picture whose alternative text has all the words, as an array (rows, columns, 3)."""
        found = next(a for a in self.images() if all(word in a["alt"] for word in words))
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(found["src"].split(",")[1]))).convert("RGB"), int)


# --- the table


def test_table_has_the_values_of_the_metrics_files(out, cohort):
    rows = read_table(write_report(out).metrics_tsv)
    assert [(row["scan"], row["method"]) for row in rows] == [*cohort, (T2W, "ubc")]
    for row in rows[:3]:
        record = cohort[row["scan"], row["method"]]
        for part in ("before", "after"):
            for key, value in record[part].items():
                assert row[f"{key}_{part}"] == ("n/a" if value is None else repr(value))
        assert {key: float(row[key]) for key in record["field"]} == record["field"]
        assert {step: float(row[f"runtime_{step}_s"]) for step in record["runtime_s"]} == record["runtime_s"]
    assert rows[0]["participant_id"] == "sub-01"
    assert (rows[0]["session_id"], rows[2]["session_id"]) == ("ses-1", "n/a")
    assert [row["state"] for row in rows] == ["done", "done", "done", "failed"]
    assert rows[3]["cjv_before"] == rows[3]["cjv_after"] == "n/a"


def test_data_dictionary_covers_every_column(out, cohort):
    write_scan(out, method="n4", metrics={"before": BEFORE | {"new thing": 2}, "runtime_s": {"upload": 1.5}})
    paths = write_report(out)
    dictionary = json.loads(paths.metrics_json.read_text())
    rows = read_table(paths.metrics_tsv)
    assert list(rows[0]) == list(dictionary)
    assert rows[0]["new_thing_before"] == "2.0"
    assert rows[0]["runtime_upload_s"] == "1.5"
    for entry in dictionary.values():
        assert entry["LongName"]
        assert entry["Description"]
    assert dictionary["cjv_after"]["Description"] == METRICS["cjv"].definition
    assert dictionary["cjv_after"]["Direction"] == "lower"
    assert dictionary["runtime_correct_s"]["Units"] == "s"


def test_text_cannot_break_the_table(out):
    write_scan(out, metrics={"method_version": "1\t2\nnext", "segmentation": {"method": 'a"b', "image": "\tc"}})
    write_status(out)
    rows = read_table(write_report(out).metrics_tsv)
    assert len(rows) == 1
    assert rows[0]["method_version"] == "1 2 next"
    assert rows[0]["segmentation"] == 'a"b, c'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, [1], None])
def test_what_is_not_a_finite_number_is_undefined(value):
    assert Result(T1W, "n4", record={"before": {"cjv": value}}).number("before", "cjv") is None


@pytest.mark.parametrize(
    ("key", "before", "after", "percent", "verdict"),
    [
        ("cjv", 0.8, 0.6, -25, "better"),
        ("cjv", 0.8, 0.9, 12.5, "worse"),
        ("cjv", 0.8, 0.8004, 0.05, "unchanged"),
        ("cnr", 2.0, 3.0, 50, "better"),
        ("cnr", -2.0, -3.0, -50, "worse"),
        ("response_slope", 0.5, 1.25, 150, "better"),
        ("wm_gm_contrast", 0.2, 0.1, -50, "lower"),
        ("cjv", 0.0, 0.1, None, None),
        ("cjv", None, 0.1, None, None),
    ],
)
def test_change(key, before, after, percent, verdict):
    change = Change(key, before, after)
    assert change.percent == (None if percent is None else pytest.approx(percent))
    assert change.verdict == verdict


def test_tally_counts_worsenings_and_leaves_undefined_out():
    afters = [0.4, 0.7, 0.88, None]
    results = [Result(T1W, "n4", record={"before": {"cjv": 0.8}, "after": {"cjv": after}}) for after in afters]
    found = tally(results, "cjv")
    assert (found.n, found.counts) == (3, {"better": 2, "worse": 1})
    assert found.median_percent == pytest.approx(-12.5)


# --- the page


def test_nothing_yet_and_no_folder(out):
    paths = write_report(out)
    assert "Nothing has been corrected here yet" in Page(paths.html).text
    assert read_table(paths.metrics_tsv) == []
    assert "cjv_before" in json.loads(paths.metrics_json.read_text())
    with pytest.raises(BIDSError, match="no such folder"):
        write_report(out / "nowhere")


# --- missing and damaged files


def test_damaged_records_are_reported(out, cohort):
    (out / "n4/sub-02/anat/sub-02_desc-T2w_metrics.json").write_text('{"before": ')
    (out / "ubc/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.json").write_text("[1]")
    (out / "ubc/dataset_description.json").unlink()
    paths = write_report(out)
    text = Page(paths.html).text
    assert "not readable as JSON" in text
    assert "done according to status.tsv, but no readable metrics file names it" in text
    assert "a JSON object is needed, not a list" in text
    assert "not a BIDS data set" in text
    rows = read_table(paths.metrics_tsv)
    assert [row["cjv_after"] for row in rows] == ["0.6", "0.9", "n/a", "n/a"]
    told = CliRunner().invoke(cli, ["report", str(out), "--no-scan-pages"])
    count = len(read_table(out / "reports/problems.tsv"))
    assert told.exit_code == 0 and count >= 4
    assert f"Problems with files: {count};" in told.stderr


def test_records_of_other_shapes_are_not_fatal(out):
    odd = {
        "before": [1],
        "after": "x",
        "field": 3,
        "undefined": ["a"],
        "segmentation": None,
        "runtime_s": 5,
        "warnings": 7,
    }
    write_scan(out, metrics=odd | {"source": 12})
    write_status(out)
    paths = write_report(out)
    assert "does not say which source it belongs to" in Page(paths.html).text
    assert read_table(paths.metrics_tsv)[0]["scan"] == T1W


def test_status_is_read_as_it_was_written(out, cohort):
    reasons = [result.reason for result in collect(out).results if result.failed]
    assert reasons == ['sub-02_T2w.nii.gz: "bad" <script>alert(1)</script>']
    (out / "status.tsv").write_text("scan\tmethod\n")
    assert "has no column reason, state" in Page(write_report(out).html).text
    (out / "status.tsv").unlink()
    text = Page(write_report(out).html).text
    assert "so that failures are not known" in text
    assert "of 3 status.tsv does not say what became of them" in text


def test_an_earlier_result_does_not_hide_a_failure(out, cohort):
    write_status(out, (T1W, "n4", "failed", "no space"))
    paths = write_report(out)
    row = read_table(paths.metrics_tsv)[0]
    assert (row["state"], row["cjv_after"]) == ("failed", "n/a")
    text = Page(paths.html).text
    assert "no space" in text
    assert "an earlier run's files are there, not shown" in text


def test_methods_that_were_not_scored_alike_are_reported(out, cohort):
    write_scan(
        out,
        method="ubc",
        metrics={"before": BEFORE | {"cjv": 0.81}, "segmentation": {"method": "kmeans", "image": "the acquired image"}},
    )
    text = Page(write_report(out).html).text
    assert "CJV before differs between methods" in text
    assert "the methods were scored with different segmentations" in text
