"""BIDS names taken apart and put together."""

import pytest

from biascorr_pydra.bids import Name, join, parse


@pytest.mark.parametrize(
    ("file_name", "entities", "suffix"),
    [
        ("sub-01_T1w.nii.gz", (("sub", "01"),), "T1w"),
        ("sub-01_ses-2_acq-a-b_run-3_T2w.nii", (("sub", "01"), ("ses", "2"), ("acq", "a-b"), ("run", "3")), "T2w"),
        ("sub-01_T2w_desc-brain_mask.nii.gz", (("sub", "01"), ("desc", "brain")), "mask"),  # an older spelling
        ("T1w.json", (), "T1w"),
    ],
)
def test_names(file_name, entities, suffix):
    assert parse(file_name) == Name(entities, suffix)
    if "T2w_desc" not in file_name:
        assert "_".join(filter(None, [join(entities), suffix])) == file_name.split(".")[0]


def test_labels_by_entity():
    name = parse("sub-01_ses-2_T1w.nii.gz")
    assert (name.label("ses"), name.label("run")) == ("2", None)
