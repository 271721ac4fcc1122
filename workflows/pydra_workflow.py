"""The bias-correction workflow nested in a Pydra workflow of one's own, next to a task that runs another program.

pydra run workflows/pydra_workflow.py --t1w sub-01_T1w.nii.gz
"""

from fileformats.medimage import NiftiGz
from pydra.compose import shell, workflow
from pydra.tasks import biascorr

Checksum = shell.define("sha256sum <in_file:medimage/nifti-gz>")


@workflow.define(outputs=["corrected", "brain", "checksum"])
def CorrectAndSign(t1w: NiftiGz, mask: NiftiGz | None = None, method: str = "deepem") -> tuple[NiftiGz, NiftiGz, str]:
    """Correct a T1w image, and take the checksum of the result.

    Parameters
    ----------
    t1w : NiftiGz
        the image
    mask : NiftiGz
        brain mask; made with deepbet by default
    method : str
        the correction method, see `biascorr methods`

    Returns
    -------
    corrected : NiftiGz
        the corrected image
    brain : NiftiGz
        the corrected image without what is outside the brain
    checksum : str
        SHA-256 of the corrected image, as sha256sum prints it
    """
    skull_strip = "deepbet" if mask is None else "given"
    corrected = workflow.add(
        biascorr.BiasCorrection(in_file=t1w, in_mask=mask, skull_strip=skull_strip, method=method, segmentation="none")
    )
    signed = workflow.add(Checksum(in_file=corrected.bias_corrected))
    return corrected.bias_corrected, corrected.out_file, signed.stdout
