"""`biascorr correct` as a Pydra shell task: unlike a Python task, Pydra can run it in a container.

The image must have this package installed, so that `biascorr` is on its path.
"""

import json
from pathlib import Path

from fileformats.application import Json
from fileformats.generic import File
from fileformats.medimage import NiftiGz
from pydra.compose import shell

from biascorr_pydra.correction.options import help_of
from biascorr_pydra.single import rejected_file_beside

from .fields import shell_input

__all__ = ["CorrectBiasShell"]

OUT_FILE = "corrected.nii.gz"


def set_options(options: dict) -> str:
    """`--set NAME=VALUE` for each parameter, values as JSON without blanks, quoted for Pydra to take apart."""
    pairs = (f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in (options or {}).items())
    return " ".join(f"--set '{pair}'" for pair in pairs)


def gate_option(gate: bool) -> str:
    """`--no-gate` where the field is not to be judged."""
    return "" if gate else "--no-gate"


def kept_field(cache_dir: Path) -> Path | None:
    """The field that was not divided out, where the command keeps it, if there is one."""
    file = rejected_file_beside(cache_dir / OUT_FILE)
    return file if file.exists() else None


@shell.define
class CorrectBiasShell(shell.Task["CorrectBiasShell.Outputs"]):
    """Estimate and remove the bias field of one image, with the command `biascorr correct`."""

    executable = ("biascorr", "correct")

    in_file: File = shell.arg(help=help_of("in_file"), argstr="", position=1)
    method: str = shell_input("method")
    preset: str | None = shell_input("preset")
    options: dict | None = shell_input("options", argstr=None, formatter=set_options)
    mask_file: File | None = shell_input("mask_file")
    weight_file: File | None = shell_input("weight_file")
    device: str = shell_input("device")
    seed: int = shell_input("seed")
    average_frames: bool = shell_input("average_frames")
    gate: bool = shell_input("gate", formatter=gate_option)
    fallback: str = shell_input("fallback")
    check_response: bool = shell_input("check_response")
    strict: bool = shell_input("strict")
    suffix: str | None = shell_input("suffix")
    metadata_file: File | None = shell.arg(help=help_of("metadata"), argstr="--metadata-file", default=None)

    class Outputs(shell.Outputs):
        out_file: NiftiGz = shell.outarg(help=help_of("out_file"), argstr="", position=2, path_template=OUT_FILE)
        bias_file: NiftiGz = shell.outarg(help=help_of("bias_file"), argstr="--bias-file", path_template="bias.nii.gz")
        record_file: Json = shell.outarg(
            help=help_of("record_file"), argstr="--record-file", path_template="record.json"
        )
        rejected_file: NiftiGz | None = shell.out(help=help_of("rejected_file"), callable=kept_field)
        report_file: File | None = shell.outarg(
            help=help_of("report_file"), argstr="--report", path_template="report.html", default=None
        )
        uncertainty_file: NiftiGz | None = shell.outarg(
            help=help_of("uncertainty_file"),
            argstr="--uncertainty-file",
            path_template="uncertainty.nii.gz",
            default=None,
        )
