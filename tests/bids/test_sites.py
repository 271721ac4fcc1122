"""Which data sets a study has and which site each scan belongs to; whatever does not fit is reported."""

from pathlib import Path

import pytest

from biascorr_pydra import bids
from biascorr_pydra.bids import Job, SiteRoot
from biascorr_pydra.bids.sites import participant_key
from biascorr_pydra.errors import BIDSError


def make_root(study: Path, name: str, labels=(), table: str | None = None) -> SiteRoot:
    root = study / name
    root.mkdir(parents=True, exist_ok=True)
    for label in labels:
        (root / f"sub-{label}").mkdir()
    if table is not None:
        (root / "participants.tsv").write_text(table.replace("|", "\t"))
    return SiteRoot(name, root)


def job(label: str, session: str | None = None) -> Job:
    entities = (("sub", label), *((("ses", session),) if session else ()))
    name = "_".join(f"{key}-{value}" for key, value in entities)
    relative = f"sub-{label}/{f'ses-{session}/' if session else ''}anat/{name}_T1w.nii.gz"
    return Job(Path("/data") / relative, relative, entities, "T1w")


def phenotypic(folder: Path, text: str):
    file = folder / "Phenotypic_V1_0b.csv"
    file.write_text(text)
    return bids.read_phenotypic(file)


def kinds(problems) -> list[str]:
    return [problem.kind for problem in problems]


@pytest.mark.parametrize("text", ["sub-0050002", "0050002", "50002", "50002.0", "Pitt_0050002", "MaxMun_a_0050002"])
def test_one_participant_by_all_its_names(text):
    assert participant_key(text) == "50002"


def test_other_participants_stay_apart():
    assert participant_key("sub-01A") == "01A" and participant_key("000") == "0" and participant_key("50003") != "50002"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("MAX_MUN", "MaxMun_a", True),
        ("CMU", "CMU_b", True),
        ("OLIN", "Olin", True),
        ("UCLA_1", "UCLA_1", True),
        ("UM", "UM_2", True),
        ("UM_1", "UM_2", False),
        ("UM", "USM", False),
        ("NYU", "Yale", False),
    ],
)
def test_names_of_one_site(one, other, same):
    assert bids.same_site(one, other) is same and bids.same_site(other, one) is same


def test_indis_layout(tmp_path):
    raw = tmp_path / "ABIDE" / "RawDataBIDS"
    make_root(raw, "Caltech", ["0051456"])
    make_root(raw, "CMU_a", ["0050642"])
    make_root(raw, "empty", table="participant_id\n")
    for aside in ("code", ".git", "derivatives"):
        make_root(raw, aside, ["01"])
    (raw / "notes").mkdir()
    expected = ["CMU_a", "Caltech", "empty"]
    assert [root.name for root in bids.find_site_roots(raw)] == expected
    assert [root.name for root in bids.find_site_roots(tmp_path / "ABIDE")] == expected
    assert bids.find_site_roots(raw)[0].participants() == ["0050642"]


def test_one_data_set(tmp_path):
    make_root(tmp_path, "", ["01", "02"])
    assert bids.find_site_roots(tmp_path) == [SiteRoot("", tmp_path)]


def test_no_study(tmp_path):
    with pytest.raises(BIDSError, match=r"neither a BIDS data set nor"):
        bids.find_site_roots(tmp_path)
    with pytest.raises(BIDSError, match="no such folder"):
        bids.find_site_roots(tmp_path / "none")


def test_the_phenotypic_table(tmp_path):
    table = phenotypic(
        tmp_path,
        "\ufeffSITE_ID,SUB_ID,FILE_ID\nPITT,50002,no_filename\nOLIN,-9999,Olin_0050102\n-9999,50003,x\n"
        "NYU,,-9999\nKKI,7,a\nkki,7,a\nKKI,8,a\nSBL,8,a\n",
    )
    assert table.sites == {"50002": "PITT", "50102": "OLIN", "50003": None, "7": "kki", "8": None}
    assert sorted(kinds(table.problems)) == ["duplicate id", "duplicate id", "no id", "no site"]
    texts = " ".join(problem.text for problem in table.problems)
    assert "participant 8 has 2 rows; no site is taken from them, sites named: KKI, SBL" in texts
    assert "line 5" in next(problem.where for problem in table.problems if problem.kind == "no id")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("SUB_ID,AGE\n1,2\n", "a column SITE_ID"),
        ("SITE_ID,AGE\n1,2\n", "a column SITE_ID"),
        ("", "not readable as a table"),
        ('SITE_ID,SUB_ID\n"NYU,1\n', "not readable as a table"),
    ],
)
def test_a_phenotypic_table_that_cannot_be_used(tmp_path, content, words):
    with pytest.raises(BIDSError, match=words):
        phenotypic(tmp_path, content)
    with pytest.raises(BIDSError, match="not readable"):
        bids.read_phenotypic(tmp_path / "none.csv")


def test_the_phenotypic_table_overrides_and_disagreement_is_said(tmp_path):
    caltech = make_root(tmp_path, "Caltech", ["001", "002"], "participant_id\nsub-001\nsub-002\n")
    cmu = make_root(tmp_path, "CMU_a", ["003"], "participant_id\nsub-003\n")
    table = phenotypic(tmp_path, "SITE_ID,SUB_ID\nCALTECH,1\nNYU,2\nCMU,3\n")
    scans, problems = bids.assign_sites({caltech: [job("001"), job("002")], cmu: [job("003")]}, table)
    assert [(scan.site, scan.source) for scan in scans] == [
        ("CALTECH", "phenotypic"),
        ("NYU", "phenotypic"),
        ("CMU", "phenotypic"),
    ]
    assert kinds(problems) == ["site conflict"]
    assert problems[0].where == "Caltech/sub-002/anat/sub-002_T1w.nii.gz"
    assert problems[0].text == "sites disagree (phenotypic: NYU; folder: Caltech); NYU is used"


@pytest.mark.parametrize("column", ["site", "SITE_ID", "site_id", "Site", "Center"])
def test_sites_in_participants_tsv(tmp_path, column):
    root = make_root(tmp_path, "", ["01", "02", "03"], f"participant_id|{column}\nsub-01|A\nsub-02|B\nsub-03|n/a\n")
    scans, problems = bids.assign_sites({root: [job("01"), job("02"), job("03")]})
    assert [(scan.site, scan.source) for scan in scans] == [("A", "participants"), ("B", "participants"), (None, None)]
    assert kinds(problems) == ["no site"] and problems[0].where == "sub-03/anat/sub-03_T1w.nii.gz"


def test_a_single_data_set_without_sites(tmp_path):
    root = make_root(tmp_path, "", ["01"], "participant_id|age\nsub-01|3\n")
    scans, problems = bids.assign_sites({root: [job("01")]})
    assert scans[0].site is None
    assert kinds(problems) == ["no site", "no site"]  # the column, and the scan


def test_without_a_table_the_folder_tells(tmp_path):
    root = make_root(tmp_path, "KKI", ["01"])
    scans, problems = bids.assign_sites({root: [job("01")]})
    assert (scans[0].site, scans[0].source) == ("KKI", "folder")
    assert kinds(problems) == ["no table"]
    damaged = make_root(tmp_path, "SBL", ["02"], "participant_id|a\nsub-02|1|2|3\n|||||\n")
    assert kinds(bids.assign_sites({damaged: [job("02")]})[1]) == ["unreadable table"]


def test_unmatched_missing_and_duplicate_participants(tmp_path):
    a = make_root(tmp_path, "CMU_a", ["01", "02", "04"], "participant_id\nsub-01\nsub-01\nsub-05\n")
    b = make_root(tmp_path, "CMU_b", ["02"], "participant_id\nsub-02\n")
    table = phenotypic(tmp_path, "SITE_ID,SUB_ID\nCMU,1\nCMU,6\n")
    scans, problems = bids.assign_sites({a: [job("01", "1"), job("01", "2"), job("02")], b: [job("02")]}, table)
    reported = {(problem.kind, problem.where) for problem in problems}
    assert ("duplicate id", "CMU_a/participants.tsv") in reported
    assert ("unmatched participant", "CMU_a/sub-02") in reported and (
        "unmatched participant",
        "CMU_b/sub-02",
    ) in reported
    assert ("duplicate id", "sub-02") in reported
    assert ("several scans", "CMU_a/sub-01") in reported
    missing = {problem.where: problem.text for problem in problems if problem.kind == "missing scan"}
    assert set(missing) == {"participant 4", "participant 5", "participant 6"}
    assert missing["participant 4"].endswith("named by CMU_a/sub-04")
    assert missing["participant 5"].endswith("named by CMU_a/participants.tsv")
    assert missing["participant 6"].endswith("named by the phenotypic table (CMU)")
    # The scan of CMU_a without a row goes with the others of its folder; CMU_b has none that tell.
    assert [(scan.site, scan.source) for scan in scans] == [
        ("CMU", "phenotypic"),
        ("CMU", "phenotypic"),
        ("CMU", "neighbors"),
        ("CMU_b", "folder"),
    ]
    chosen = bids.assign_sites({a: [job("01", "1")], b: []}, table, everyone=False)[1]
    assert "missing scan" not in kinds(chosen)


def test_one_site_has_one_spelling(tmp_path):
    a = make_root(tmp_path, "Olin", ["01"], "participant_id|site\nsub-01|n/a\n")
    b = make_root(tmp_path, "more", ["02"], "participant_id|site\nsub-02|OLIN\n")
    scans, _ = bids.assign_sites({a: [job("01")], b: [job("02")]})
    assert [scan.site for scan in scans] == ["OLIN", "OLIN"]


def test_data_sets_left_aside_and_inside(tmp_path):
    root = make_root(tmp_path, "", ["01"])
    make_root(tmp_path, "more", ["02"])
    make_root(tmp_path, "derivatives", ["03"])
    assert bids.inner_data_sets(root) == ["more"]
    a, b = make_root(tmp_path / "s", "A", ["01"]), make_root(tmp_path / "s", "B", ["02"])
    table = phenotypic(tmp_path, "SITE_ID,SUB_ID\nA,1\nB,2\nB,3\n")
    _, problems = bids.assign_sites({a: [job("01")]}, table, aside=[b])
    assert [problem.where for problem in problems if problem.kind == "missing scan"] == ["participant 3"]
    assert not root.has("T1w")
    (tmp_path / "sub-01/ses-1/anat").mkdir(parents=True)
    (tmp_path / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii").touch()
    assert root.has("T1w") and not root.has("T2w")
