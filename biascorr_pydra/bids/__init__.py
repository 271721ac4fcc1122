"""BIDS in and out: index a data set into a plan of frozen jobs; own every output name and sidecar.

One derivative data set per method, so that names inside stay the standard ones (BIDS 1.11, derivatives)::

    OUT/<method>/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz
                                   sub-01_ses-1_desc-T1w_biasfield.nii.gz
                                   sub-01_ses-1_desc-brain_mask.nii.gz  ...

A mask or segmentation drawn on a T1w carries no ``space``, as fMRIPrep writes and reads it; one drawn on another
contrast carries that contrast (``space-T2w``), so that two contrasts of one session do not collide.
"""

from .jobs import ANATOMICAL_SUFFIXES, DATASET_DESCRIPTION, TISSUES, Job, index, survey
from .normalized import NORMALIZED, NORMALIZED_README, normalized_paths, normalized_sidecars
from .outputs import (
    GROUP_FILES,
    NOT_CORRECTED,
    STATUS_COLUMNS,
    bids_uri,
    check_ours,
    make_folder,
    output_paths,
    prepare_dataset,
    sidecar,
    sidecars,
)
from .sites import (
    Phenotypes,
    SitedScan,
    SiteProblem,
    SiteRoot,
    assign_sites,
    find_site_roots,
    inner_data_sets,
    participant_key,
    read_phenotypic,
    same_site,
)

__all__ = [
    "ANATOMICAL_SUFFIXES",
    "DATASET_DESCRIPTION",
    "GROUP_FILES",
    "NORMALIZED",
    "NORMALIZED_README",
    "NOT_CORRECTED",
    "STATUS_COLUMNS",
    "TISSUES",
    "Job",
    "Phenotypes",
    "SiteProblem",
    "SiteRoot",
    "SitedScan",
    "assign_sites",
    "bids_uri",
    "check_ours",
    "find_site_roots",
    "index",
    "inner_data_sets",
    "make_folder",
    "normalized_paths",
    "normalized_sidecars",
    "output_paths",
    "participant_key",
    "prepare_dataset",
    "read_phenotypic",
    "same_site",
    "sidecar",
    "sidecars",
    "survey",
]
