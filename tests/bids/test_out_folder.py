"""A folder that merely contains an output folder is refused, with the right one's name, and left as it was."""

import json

import pytest
from click.testing import CliRunner
from written_cohort import T1W, write_scan, write_status

from biascorr_pydra.bids import DESIGN, mark_study, output_folders
from biascorr_pydra.cohort import status
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.report import write_report


def write_output(folder):
    write_scan(folder)
    write_status(folder, (T1W, "n4", "done", "n/a"))
    return folder


def written(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("command", ["report", "status"])
@pytest.mark.parametrize("place", ["out", "derivatives/out"])
def test_a_parent_is_refused_and_its_childs_pages_stay(tmp_path, command, place):
    """With the raw data set beside OUT, as most people have it."""
    out = write_output(tmp_path / place)
    (tmp_path / "raw/sub-01/anat").mkdir(parents=True)
    write_report(out)
    before = written(tmp_path)
    outcome = CliRunner().invoke(cli, [command, str(tmp_path)])
    assert isinstance(outcome.exception, BIDSError)
    assert str(outcome.exception) == (f"{tmp_path}: not an output folder, but a folder that contains one. Give {out}.")
    assert written(tmp_path) == before
    assert CliRunner().invoke(cli, [command, str(out)]).exit_code == 0


def test_of_several_all_are_named(tmp_path):
    for name in ("b", "a"):
        write_output(tmp_path / name)
    with pytest.raises(BIDSError, match="a folder of several") as refused:
        write_report(tmp_path)
    assert refused.value.value == f"{tmp_path / 'a'}, {tmp_path / 'b'}"
    with pytest.raises(BIDSError, match="--study"):
        status.now(tmp_path)


def test_several_are_a_study_once_they_are_called_one(tmp_path):
    for name in ("b", "a"):
        write_output(tmp_path / name)
    assert CliRunner().invoke(cli, ["report", str(tmp_path), "--study", "--no-scan-pages"]).exit_code == 0
    assert json.loads((tmp_path / "study.json").read_text())["GeneratedBy"] == "biascorr_pydra"
    write_report(tmp_path, scan_pages=False)  # from now on without the word
    assert [row.scan for row in status.now(tmp_path)[0]] == [f"a/{T1W}", f"b/{T1W}"]


@pytest.mark.parametrize("mark", [mark_study, lambda out: (out / DESIGN).write_text("{}")])
def test_a_study_of_one_data_set_is_one_by_its_mark(tmp_path, mark):
    out = write_output(tmp_path / "Pitt")
    (tmp_path / DESIGN).parent.mkdir()
    mark(tmp_path)
    assert output_folders(tmp_path) == [out]
    assert output_folders(out) == [out]


def test_what_is_no_output_folder_is_not_written_into(tmp_path):
    (tmp_path / "fmriprep/sub-01/anat").mkdir(parents=True)
    (tmp_path / "fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz").write_bytes(b"")
    for study in (False, True):
        with pytest.raises(BIDSError, match=r"it has no status\.tsv and no records"):
            write_report(tmp_path, study=study)
    assert [path.name for path in tmp_path.iterdir()] == ["fmriprep"]


def test_records_make_an_output_folder_where_the_status_table_is_lost(tmp_path):
    write_scan(tmp_path)
    assert output_folders(tmp_path) == [tmp_path]
