"""BIDS in and out: index a data set into a plan of frozen jobs; own every output name and sidecar.

One derivative data set per method, so that names inside stay the standard ones (BIDS 1.11, derivatives)::

    OUT/<method>/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz
                                   sub-01_ses-1_desc-T1w_biasfield.nii.gz
                                   sub-01_ses-1_desc-T1wrejected_biasfield.nii.gz    where a field was not divided out
                                   sub-01_ses-1_desc-brain_mask.nii.gz  ...

A mask or segmentation drawn on a T1w carries no ``space``, as fMRIPrep writes and reads it; one drawn on another
contrast carries that contrast (``space-T2w``), so that two contrasts of one session do not collide.
"""

from .dataset import GROUP_FILES, STATUS_COLUMNS, check_ours, is_ours, make_folder, prepare_dataset
from .entities import Name, join, parse
from .jobs import ANATOMICAL_SUFFIXES, DATASET_DESCRIPTION, TISSUES, Job, index, survey
from .judged import JUDGE, JUDGE_README, JUDGED
from .normalized import NORMALIZED, NORMALIZED_OUTPUTS, NORMALIZED_README
from .out_folder import DESIGN, mark_study, output_folders
from .outputs import CORRECTED, NOT_CORRECTED, Output, Outputs, Records, bids_uri, output_paths, sidecar
from .phenotypes import Phenotypes, SiteProblem, participant_key, read_phenotypic, same_site
from .roots import SiteRoot, find_site_roots, inner_data_sets, participants_by_root
from .sites import SitedScan, assign_sites

__all__ = [
    "ANATOMICAL_SUFFIXES",
    "CORRECTED",
    "DATASET_DESCRIPTION",
    "DESIGN",
    "GROUP_FILES",
    "JUDGE",
    "JUDGED",
    "JUDGE_README",
    "NORMALIZED",
    "NORMALIZED_OUTPUTS",
    "NORMALIZED_README",
    "NOT_CORRECTED",
    "STATUS_COLUMNS",
    "TISSUES",
    "Job",
    "Name",
    "Output",
    "Outputs",
    "Phenotypes",
    "Records",
    "SiteProblem",
    "SiteRoot",
    "SitedScan",
    "assign_sites",
    "bids_uri",
    "check_ours",
    "find_site_roots",
    "index",
    "inner_data_sets",
    "is_ours",
    "join",
    "make_folder",
    "mark_study",
    "output_folders",
    "output_paths",
    "parse",
    "participant_key",
    "participants_by_root",
    "prepare_dataset",
    "read_phenotypic",
    "same_site",
    "sidecar",
    "survey",
]
