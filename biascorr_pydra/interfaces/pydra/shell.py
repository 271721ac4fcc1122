"""`biascorr correct` as a Pydra shell task: unlike a Python task, Pydra can run it in a container.

The image must have this package installed, so that `biascorr` is on its path.
"""

import json

from fileformats.application import Json
from fileformats.generic import File
from fileformats.medimage import NiftiGz
from pydra.compose import shell

from biascorr_pydra.methods import DEFAULT_METHOD
from biascorr_pydra.methods.spec import NO_FALLBACK

__all__ = ["CorrectBiasShell"]


def set_options(options: dict) -> str:
    """`--set NAME=VALUE` for each parameter, values as JSON without blanks, quoted for Pydra to take apart."""
    pairs = (f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in (options or {}).items())
    return " ".join(f"--set '{pair}'" for pair in pairs)


def gate_option(gate: bool) -> str:
    """`--no-gate` where the field is not to be judged."""
    return "" if gate else "--no-gate"


@shell.define
class CorrectBiasShell(shell.Task["CorrectBiasShell.Outputs"]):
    """Estimate and remove the bias field of one image, with the command `biascorr correct`."""

    executable = ("biascorr", "correct")

    in_file: File = shell.arg(help="the image, .nii or .nii.gz, 3-D", argstr="", position=1)
    method: str = shell.arg(
        help="the correction method, see `biascorr methods`", argstr="--method", default=DEFAULT_METHOD
    )
    preset: str | None = shell.arg(help="a named set of the method's parameters", argstr="--preset", default=None)
    options: dict | None = shell.arg(help="single parameters of the method", formatter=set_options, default=None)
    mask_file: File | None = shell.arg(help="where to estimate the field", argstr="--mask-file", default=None)
    weight_file: File | None = shell.arg(
        help="how much each voxel counts, for n4 and ants-n4", argstr="--weight-file", default=None
    )
    device: str = shell.arg(
        help="auto, cpu or cuda", argstr="--device", default="auto", allowed_values=["auto", "cpu", "cuda"]
    )
    seed: int = shell.arg(help="for methods that draw random numbers", argstr="--seed", default=0)
    average_frames: bool = shell.arg(
        help="in_file is a 4-D series: one field, from the mean of its frames", argstr="--average-frames", default=False
    )
    gate: bool = shell.arg(
        help="judge the field; one that is negligible or rejected is not divided out",
        argstr="--gate",
        formatter=gate_option,
        default=True,
    )
    fallback: str = shell.arg(
        help="none, or a method whose field stands in for a rejected one or a refusal",
        argstr="--fallback",
        default=NO_FALLBACK,
    )
    check_response: bool = shell.arg(
        help="also judge by whether the method sees a known extra field", argstr="--check-response", default=False
    )

    class Outputs(shell.Outputs):
        out_file: NiftiGz = shell.outarg(
            help="the corrected image, float32", argstr="", position=2, path_template="corrected.nii.gz"
        )
        bias_file: NiftiGz = shell.outarg(
            help="the bias field, mean 1 over the mask", argstr="--bias-file", path_template="bias.nii.gz"
        )
        record_file: Json = shell.outarg(
            help="what was done and found", argstr="--record-file", path_template="record.json"
        )
        uncertainty_file: NiftiGz | None = shell.outarg(
            help="standard deviation of the log field over the mirror images, if asked for",
            argstr="--uncertainty-file",
            path_template="uncertainty.nii.gz",
            default=None,
        )
