"""Without nipype, niworkflows and smriprep the package works, and says which extra brings them."""

import subprocess
import sys

import pytest

BLOCKED = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
"""
FAMILY = ("nipype", "niworkflows", "nireports", "smriprep")


def python(code, absent=FAMILY):
    code = BLOCKED.format(absent=tuple(absent)) + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_everything_else_is_imported_without_them(tmp_path, phantom_file):
    done = python(
        "import biascorr_pydra.interfaces.cli.main, biascorr_pydra.interfaces.pydra.run, biascorr_pydra.cohort\n"
        "import pydra.tasks.biascorr\n"
        f"record = biascorr_pydra.correct_file({str(phantom_file)!r}, {str(tmp_path / 'o.nii.gz')!r}, method='n4')\n"
        "assert not set(sys.modules) & {'nipype', 'niworkflows', 'smriprep'}\n"
        "print(record.method)"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "n4"), done.stderr


def test_nipype_is_not_imported_unless_asked_for():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, biascorr_pydra.cohort, biascorr_pydra.interfaces.cli.main; print('nipype' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("statement", "extra"),
    [
        ("import biascorr_pydra.interfaces.nipype.interfaces", "nipype"),
        ("import biascorr_pydra.interfaces.nipype.n4", "nipype"),
        ("from biascorr_pydra.interfaces.nipype.swap import use_biascorr", "nipype"),
        ("from biascorr_pydra.interfaces.nipype.workflow import init_bias_correction_wf", "fmriprep"),
    ],
)
def test_the_error_names_the_extra(statement, extra):
    done = python(statement)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingDependencyError" in last and f'pip install "biascorr-pydra[{extra}]"' in last
    assert f"Got: {FAMILY[0]}" in last
    caught = python(f"try:\n    {statement}\nexcept ImportError as error:\n    print(error.rule)")
    assert "not installed" in caught.stdout
