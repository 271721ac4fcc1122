"""A full disk: said, nothing half-written, and the same command goes on when there is room."""

import os
import subprocess
import sys

import nibabel as nib
import pytest
from small_cohort import SCANS, WITHOUT, WORKFLOW

from biascorr_pydra.images import nifti

# In a mount namespace of its own, which needs no root: the output folder is a small tmpfs, filled up for the first run.
SCRIPT = """
set -e
mount -t tmpfs -o size=40m tmpfs "$OUT"
head -c "$FILL" /dev/zero > "$OUT/ballast" || true
set +e
"$PYTHON" -c "from biascorr_pydra.interfaces.pydra.run import main; main()" run "$@" > "$LOG.first" 2>&1
echo "first $?"
find "$OUT" -name '.*.nii.gz' -o -name '.*.json'
rm "$OUT/ballast"
"$PYTHON" -c "from biascorr_pydra.interfaces.pydra.run import main; main()" run "$@" > "$LOG.second" 2>&1
echo "second $?"
cp -r "$OUT" "$KEEP"
"""


@pytest.mark.slow
@pytest.mark.parametrize("free_kb", [60, 420])  # full from the start; full in the middle
def test_a_full_disk_is_said_and_the_run_recovers(dataset, tmp_path, free_kb):
    out, log, keep = tmp_path / "small", tmp_path / "log", tmp_path / "kept"
    out.mkdir()
    arguments = [str(WORKFLOW), "--bids-dir", str(dataset), "--out-dir", str(out), *WITHOUT, "--worker", "lanes"]
    arguments += ["--method", "n4"]
    environment = os.environ | {
        "OUT": str(out), "LOG": str(log), "KEEP": str(keep), "PYTHON": sys.executable,
        "FILL": str((40 * 1024 - free_kb) * 1024), "NO_ET": "1",
    }  # fmt: skip
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", SCRIPT, "bash", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    first = (tmp_path / "log.first").read_text()
    assert done.stdout.split("\n")[0] == "first 1" and "No space left on device" in first, done.stdout + first
    assert "Traceback" not in first
    lines = [line for line in done.stdout.splitlines() if line.startswith(str(out))]
    assert lines == []  # nothing half-written
    assert "second 0" in done.stdout, (tmp_path / "log.second").read_text()
    for scan in SCANS:
        corrected = nifti.load(keep / "n4" / scan.replace("_T1w", "_desc-preproc_T1w"))
        bias = nifti.load(keep / "n4" / scan.replace("_T1w", "_desc-T1w_biasfield"))
        assert isinstance(corrected, nib.Nifti1Image) and (bias.get_fdata() > 0).all()
