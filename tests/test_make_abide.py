"""The simulated ABIDE: its sites, both layouts, its truth, and that a seed gives the same voxels."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from biascorr_pydra import bids
from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline

EXAMPLES = Path(__file__).parents[1] / "bids_examples"
NAMES = [
    *("CALTECH", "CMU", "KKI", "LEUVEN", "MAX_MUN", "NYU", "OHSU", "OLIN", "PITT"),
    *("SBL", "SDSU", "STANFORD", "TRINITY", "UCLA", "UM", "USM", "YALE"),
]


@pytest.fixture(scope="module")
def abide():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        patch.setattr(sys, "dont_write_bytecode", True)  # the folder of examples stays as it is committed
        import make_abide
    return make_abide


def make(abide, out: Path, sites=("KKI", "MAX_MUN"), layout="indi", seed=1):
    scans = [scan for scan in abide.plan_scans(None, 2) if scan.site.name in sites]
    abide.make_abide(out, scans, layout=layout, voxel_size_mm=8.0, seed=seed)
    return scans


def test_the_sites_and_their_sizes(abide):
    assert [site.name for site in abide.SITES] == NAMES
    assert sum(site.n_scans for site in abide.SITES) == 1112
    assert len([folder for site in abide.SITES for folder in site.folders]) == 24
    for site in abide.SITES:
        assert all(bids.same_site(site.name, folder) for folder in site.folders)


@pytest.mark.parametrize("n", [17, 34, 100, 1112])
def test_scans_are_shared_out(abide, n):
    scans = abide.plan_scans(n, None)
    counts = {name: sum(scan.site.name == name for scan in scans) for name in NAMES}
    assert len(scans) == n and min(counts.values()) >= 1
    assert len({scan.label for scan in scans}) == n
    if n == 1112:
        assert counts == {site.name: site.n_scans for site in abide.SITES}
        assert len({scan.folder for scan in scans}) == 24
    with pytest.raises(SystemExit, match="at least one a site"):
        abide.plan_scans(16, None)


def test_indis_layout_with_its_truth(abide, tmp_path):
    scans = make(abide, tmp_path)
    roots = bids.find_site_roots(tmp_path)
    assert [root.name for root in roots] == ["KKI", "MaxMun_a", "MaxMun_b"]
    jobs = {root: bids.index(root.path, derivatives=tmp_path / "truth" / root.name) for root in roots}
    sited, problems = bids.assign_sites(jobs, bids.read_phenotypic(tmp_path / "Phenotypic_simulated.csv"))
    assert problems == [] and {scan.site for scan in sited} == {"KKI", "MAX_MUN"}
    job_of = {job.source.name.split("_")[0]: job for mine in jobs.values() for job in mine}
    assert set(job_of) == {scan.label for scan in scans}
    for scan in scans:
        job = job_of[scan.label]
        assert set(job.given) == {"mask", "dseg", "GM", "WM", "CSF"}
        img = nifti.load(job.source)
        sizes = nifti.voxel_size_mm(img)
        assert sizes == pytest.approx([8 * factor for factor in scan.site.voxel])
        mask, resampled = nifti.load_mask(job.given["mask"], img)
        assert not resampled
        about = json.loads(job.given["dseg"].with_name(f"{scan.label}_desc-T1w_biasfield.json").read_text())
        spline = LogBiasSpline(np.array(about["LogBiasControlPoints"]), about["MeshFirst"], about["MeshLast"])
        low, high = np.percentile(spline.on_grid(img.shape)[mask], (5, 95))
        assert 0.75 * scan.site.field_range - 0.01 < high - low < 1.25 * scan.site.field_range + 0.01
        # Divided by the true field, white matter gets more uniform, and the tissues lie in their order.
        dseg, data = np.asarray(nifti.load(job.given["dseg"]).dataobj), img.get_fdata()
        true = data / np.exp(spline.on_grid(img.shape))
        pure = (dseg == 2) & (nifti.load(job.given["WM"]).get_fdata() > 0.8)
        assert true[pure].std() / true[pure].mean() < data[pure].std() / data[pure].mean()
        csf, gm, wm = (np.median(true[dseg == label]) for label in (3, 1, 2))
        assert csf < gm < wm


def test_one_data_set_and_the_same_voxels_again(abide, tmp_path):
    make(abide, tmp_path / "a", sites=("KKI",))
    scans = make(abide, tmp_path / "b", sites=("KKI",), layout="bids")
    other = make(abide, tmp_path / "c", sites=("KKI",), layout="bids", seed=2)
    (root,) = bids.find_site_roots(tmp_path / "b" / "BIDS")
    assert [site.site for site in bids.assign_sites({root: bids.index(root.path)})[0]] == ["KKI", "KKI"]
    for scan, changed in zip(scans, other, strict=True):
        name = f"{scan.label}_T1w.nii.gz"
        one, two = (
            np.asarray(nifti.load(scan.anat(tmp_path / top, layout) / name).dataobj)
            for top, layout in (("a/RawDataBIDS", "indi"), ("b/BIDS", "bids"))
        )
        assert np.array_equal(one, two)
        three = np.asarray(nifti.load(changed.anat(tmp_path / "c/BIDS", "bids") / name).dataobj)
        assert not np.array_equal(one, three)


def test_flaws_are_what_they_are_said_to_be(abide, tmp_path):
    scans = abide.plan_scans(None, 1)
    for scan in scans:  # the images do not matter here
        anat = scan.anat(tmp_path / "RawDataBIDS", "indi")
        anat.mkdir(parents=True)
        (anat / f"{scan.label}_T1w.nii.gz").write_bytes(b"x")
    abide.describe(tmp_path, "indi", scans)
    flaws = abide.add_flaws(tmp_path, "indi", scans)
    assert len(flaws) == 8
    roots = {root.name: root for root in bids.find_site_roots(tmp_path)}
    assert not roots["Olin"].described and "sidecards" in roots
    (empty,) = [file for file in tmp_path.rglob("*_T1w.nii.gz") if file.stat().st_size == 0]
    assert empty.parts[-4] == "Pitt"
    jobs = {
        root: bids.index(root.path, allow_undescribed=True)
        for root in roots.values()
        if any(root.path.rglob("*.nii.gz"))
    }
    _, problems = bids.assign_sites(jobs, bids.read_phenotypic(tmp_path / "Phenotypic_simulated.csv"))
    kinds = sorted(problem.kind for problem in problems)
    # UCLA's one participant has no T1w, and its folder is no data set to work on any more
    assert kinds == ["duplicate id", "missing scan", "missing scan", "site conflict", "unmatched participant"]
    with (tmp_path / "Phenotypic_simulated.csv").open() as stream:
        assert {row["FIQ"] for row in csv.DictReader(stream)} == {"-9999"}
