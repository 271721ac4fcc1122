"""A small cohort of written files whose numbers are known, for the tests of reports, and what reads their pages."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from biascorr_pydra.images import nifti
from biascorr_pydra.judge import JUDGE_VERSION, RANKED_BY

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


def write_scan(out, scan=T1W, method="n4", *, after=None, codes="RAS", metrics=None, judged=True):
    """One method's files for one scan, as the cohort writes them; returns its numbers.

    The judge's numbers are those of the method's own segmentation, ``before`` and ``after``. Files not
    ``judged`` are of an earlier version.
    """
    folder = out / method / scan.rsplit("/", 1)[0]
    folder.mkdir(parents=True, exist_ok=True)
    (out / method / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.11.0"}')
    stem, suffix = scan.rsplit("/", 1)[1].removesuffix(".nii.gz").rsplit("_", 1)
    space = "" if suffix == "T1w" else f"_space-{suffix}"
    names = f"{stem}_desc-preproc_{suffix}", f"{stem}_desc-{suffix}_biasfield", f"{stem}{space}_desc-brain_mask"
    for data, name in zip(volumes(), names, strict=True):
        img = nib.Nifti1Image(np.asarray(data, np.float32), AFFINE)
        orientation = nib.orientations.axcodes2ornt(codes)
        img = img.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(AFFINE), orientation))
        nifti.save(img, folder / f"{name}.nii.gz")
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
    own = {f"own_{part}" if part in ("before", "after") else part: content for part, content in record.items()}
    written = own if judged and isinstance(record["undefined"], dict) else record
    (folder / f"{stem}_desc-{suffix}_metrics.json").write_text(json.dumps(written))
    if judged:
        write_judge(out, scan, method, record)
    return record


def pair(first, second, change, half_width=2.0):
    """A pair as the judge writes it, by the change in percent of both of its numbers; small ones are within noise."""
    verdict = second if change < -half_width else first if change > half_width else "cannot tell"
    changes = {key: [change, change - half_width, change + half_width] for key in RANKED_BY}
    return {"first": first, "second": second, "verdict": verdict, "changes": changes}


def write_judge(out, scan, method, record):
    """Add a method to the scan's record of the judge, who says what the CJV says."""
    path = out / "judge" / scan.rsplit("/", 1)[0]
    stem, suffix = scan.rsplit("/", 1)[1].removesuffix(".nii.gz").rsplit("_", 1)
    path.mkdir(parents=True, exist_ok=True)
    (out / "judge/dataset_description.json").write_text('{"Name": "judge", "BIDSVersion": "1.11.0"}')
    path /= f"{stem}_desc-{suffix}_judge.json"
    judge = json.loads(path.read_text()) if path.is_file() else {"images": {}, "delivered": {}, "left_out": {}}
    parts = [record[part] if isinstance(record[part], dict) else {} for part in ("before", "after")]
    before, after = ({key: value for key, value in part.items() if key != "undefined"} for part in parts)
    judge["delivered"][method] = record.get("work", {}).get("key", "key")
    judge["images"] |= {"acquired": before, method: after | {"undefined": {}}}
    gate = record.get("gate") or {}
    if gate.get("verdict") == "rejected" and gate.get("applied") == "none":
        del judge["images"][method]
        judge["left_out"][method] = "rejected by the gate: delivered as acquired"
    for values in judge["images"].values():  # the number that ranks moves with CJV
        if isinstance(values.get("cjv"), float):
            values["tissue_unevenness"] = values["cjv"] / 4
    known = {name: values["cjv"] for name, values in judge["images"].items() if isinstance(values.get("cjv"), float)}
    judge["pairs"] = [pair(a, b, 100 * (known[b] / known[a] - 1)) for a, b in combinations(known, 2)]
    judge["judged"] = {name: key for name, key in judge["delivered"].items() if name in judge["images"]}
    judge |= {"source": f"bids:raw:{scan}", "suffix": suffix, "judge_version": JUDGE_VERSION, "reason": None}
    judge |= {"voxels": {"WM": 9000, "GM": 8000}, "grid_mm": [2, 2, 2], "runtime_s": 0.9}
    path.write_text(json.dumps(judge))


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
        match = next(a for a in self.images() if all(word in a["alt"] for word in words))
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(match["src"].split(",")[1]))).convert("RGB"), int)


# --- for the pages of scans


@pytest.fixture
def small_pictures(monkeypatch):
    """Pictures take most of the time; that of the histograms is drawn in a test of its own."""
    monkeypatch.setattr("biascorr_pydra.report.scan.mosaic.WIDTH_PX", 360)
    stream = io.BytesIO()
    Image.new("L", (4, 2)).save(stream, "png")
    monkeypatch.setattr("biascorr_pydra.report.scan.pictures.draw_histograms", lambda *arrays: stream.getvalue())


def write_tissues(out, scan=T1W, method="n4"):
    """A segmentation in shells beside a T1w that :func:`write_scan` wrote."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    r = x**2 + y**2 + z**2
    labels = np.select([r < 0.3, r < 0.55, r < 0.7], [2, 1, 3], 0).astype(np.uint8)
    stem = scan.rsplit("_", 1)[0]
    nib.save(nib.Nifti1Image(labels, AFFINE), out / method / f"{stem}_dseg.nii.gz")
    return labels


def gate(verdict, *reasons, applied="none"):
    checks = {"support": {"value": 0.1, "least": 0.55, "passed": False}, "curvature": {"value": 0.02, "most": 0.12}}
    return {"verdict": verdict, "reasons": list(reasons), "checks": checks, "applied": applied}


@pytest.fixture
def judged_cohort(out):
    """Two methods on a T1w, the second rejected; a T2w where the second failed."""
    accepted = {"gate": gate("accepted", applied="n4"), "skull_strip": "deepbet", "preset": "biascorr"}
    write_scan(out, metrics=accepted)
    write_tissues(out)
    write_scan(out, method="ubc", after=BEFORE, metrics={"gate": gate("rejected", "no support")})
    write_scan(out, T2W, metrics=accepted)
    write_status(
        out, (T1W, "n4", "done", "n/a"), (T1W, "ubc", "rejected", "no support"), (T2W, "n4", "done", "n/a"),
        (T2W, "ubc", "failed", "out of memory <script>alert(1)</script>"),
    )  # fmt: skip
    return out
