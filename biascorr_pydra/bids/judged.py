"""Files of the judge: one record a scan, whatever the number of methods, in a derivative data set of its own."""

from __future__ import annotations

from typing import Any

from .jobs import Job
from .outputs import Output, Outputs, Records, drawn_on

__all__ = ["JUDGE", "JUDGED", "JUDGE_README"]

#: Folder name of the data set beside the methods' data sets.
JUDGE = "judge"
JUDGE_README = (
    "What the corrections of each scan are compared by: *_judge.json has the metrics of the acquired image and of\n"
    "each corrected one, and which of two is the better, or that it cannot be told.\n"
    "*_desc-judge_dseg.nii.gz is the tissue that they were measured on, on a coarse grid: gray and white matter that\n"
    "the segmentations of all these images agree on, without the borders. It is no segmentation of the brain.\n"
)


def _dseg(job: Job, records: Records) -> dict[str, Any]:
    agreed = "the segmentations of the acquired and of all corrected images agree on, without the borders"
    return {
        "Description": f"Gray and white matter that {agreed}",
        **drawn_on(job),
        "Manual": False,
        "Method": dict(records["judge"]),
    }


#: A judged scan's files; the tissue, where there was enough to be judged.
JUDGED = Outputs(
    images=(Output("dseg", "{space}_desc-judge_dseg.nii.gz", "judge", "dseg_file", _dseg),),
    record="judge",
    record_ending="_desc-{suffix}_judge.json",
)
