"""The bias-correction workflow nested in a Nipype workflow of one's own: the corrected images are smoothed.

    python workflows/nipype_workflow.py sub-01_T1w.nii.gz OUT

needs the extra "fmriprep": pip install -c constraints.txt ".[fmriprep]"
"""

import argparse
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from biascorr_pydra.interfaces.nipype.workflow import init_bias_correction_wf


def smooth(in_file, out_dir, fwhm_mm):
    """Any step of one's own: here Gaussian smoothing with nibabel."""
    from pathlib import Path

    import nibabel as nib
    from nibabel.processing import smooth_image

    out_file = Path(out_dir) / Path(in_file).name.replace(".nii", "_smoothed.nii")
    smooth_image(nib.load(in_file), fwhm_mm).to_filename(out_file)
    return str(out_file)


def build(images, out_dir, work_dir, **options) -> pe.Workflow:
    """A workflow that corrects the images of one subject and smooths them."""
    workflow = pe.Workflow("smoothed", base_dir=str(Path(work_dir).absolute()))
    corrected = init_bias_correction_wf(output_dir=out_dir, **options)
    corrected.inputs.inputnode.in_files = [str(Path(image).absolute()) for image in images]
    smoothing = pe.MapNode(
        niu.Function(input_names=["in_file", "out_dir", "fwhm_mm"], output_names=["out_file"], function=smooth),
        iterfield=["in_file"],
        name="smooth",
    )
    smoothing.inputs.out_dir, smoothing.inputs.fwhm_mm = str(Path(out_dir).absolute()), 6.0
    workflow.connect(corrected, "outputnode.bias_corrected", smoothing, "in_file")
    return workflow


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--method", default="deepem")
    parser.add_argument("--skull-strip", default="auto")
    parser.add_argument("--use-gpu", action="store_true")
    parser.add_argument("--plugin", default="MultiProc", help="MultiProc, SLURM, ...")
    given = parser.parse_args()
    given.out_dir.mkdir(parents=True, exist_ok=True)
    workflow = build(
        given.images,
        given.out_dir,
        given.out_dir / "work",
        method=given.method,
        skull_strip=given.skull_strip,
        segmentation="kmeans",
        use_gpu=given.use_gpu,
    )
    workflow.run(given.plugin)
