"""A method of another package through Nipype."""

import pytest
from nipype.pipeline import engine as pe

from biascorr_pydra import correct_file
from biascorr_pydra.interfaces.nipype.base import declare
from biascorr_pydra.interfaces.nipype.interfaces import CorrectBias

pytestmark = pytest.mark.nipype


def test_a_plugin_is_a_nipype_node_like_any_method(plugin, phantom_file, tmp_path):
    node = pe.Node(CorrectBias(in_file=phantom_file, method=plugin), name="correct", base_dir=tmp_path)
    declare(node, plugin)
    assert node.n_procs == 1 and node.plugin_args["sbatch_args"] == "--cpus-per-task=1 --mem=1331M"
    made = node.run().outputs
    correct_file(phantom_file, tmp_path / "python.nii.gz", method=plugin)
    with open(made.out_file, "rb") as out_file:
        assert out_file.read() == (tmp_path / "python.nii.gz").read_bytes()
