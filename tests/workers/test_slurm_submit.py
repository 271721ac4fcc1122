"""What is asked of Slurm for what tasks need, how work is cut into jobs, and what is refused beforehand."""

import pytest
from slurm_stand_in import NODES

from biascorr_pydra.errors import ResourceError
from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.slurm.client import Slurm
from biascorr_pydra.workers.slurm.spool import Batch, Entry
from biascorr_pydra.workers.slurm.submit import Submission


def submission(fake, *, nodes=NODES, args=(), chunk="auto", **options) -> Submission:
    fake("sinfo", nodes)
    fake("scontrol", "MaxArraySize            = 1001\n")
    made = Submission(Slurm(), sbatch_args=args, chunk=chunk, setup="", **{"max_running": None} | options)
    made.look(patience_s=0)
    return made


def batch_of(tmp_path, needs, *sizes) -> Batch:
    tasks = [[Entry("scan", f"{task}{number}") for number in range(size)] for task, size in enumerate(sizes)]
    return Batch(tmp_path, needs, tasks, driver="d")


def test_needs_become_options_and_the_users_come_last(fake, tmp_path):
    needs = Resources(cpus=2, gpus=1, mem_gb=2, minutes=4.5)
    made = submission(fake, args=("--account=lab",), max_running=3)
    command = made.arguments(batch_of(tmp_path, needs, 2, 2, 1))
    for option in ("--cpus-per-task=2", "--gres=gpu:1", "--mem=1908M", "--time=11", "--array=0-2%3", "--requeue"):
        assert option in command
    assert command[-2:] == ["--account=lab", f"{tmp_path}/job.sh"]
    single = made.arguments(batch_of(tmp_path, Resources(), 1))
    assert not [option for option in single if option.startswith(("--array", "--mem", "--time", "--gres"))]


def test_time_asked_for_stays_within_the_partitions(fake, tmp_path):
    made = submission(fake, args=("-p", "long"))
    assert "--time=2910" in made.arguments(batch_of(tmp_path, Resources(minutes=2909), 1))


def test_tasks_without_gpus_are_given_none(fake):
    made = submission(fake)
    assert "CUDA_VISIBLE_DEVICES=''" in made.script(Resources()) and "OMP_NUM_THREADS=3" in made.script(
        Resources(cpus=3)
    )
    assert "CUDA_VISIBLE_DEVICES" not in made.script(Resources(gpus=1))


@pytest.mark.parametrize(
    "waiting, minutes, partition, tasks",
    [(4, None, "main", 4),  # few: one each
     (40, None, "main", 8),  # four for each of two places
     (1112, None, "main", 112),  # no more than ten together
     (1112, 15, "long", 371),  # three times 15 minutes, and start-up, fit in an hour
     (1112, 2, "long", 93),  # about a hundred jobs are no burden
     (40, 90, "long", 40)],
)  # fmt: skip
def test_chunks_keep_jobs_few_and_short(fake, waiting, minutes, partition, tasks):
    made = submission(fake, args=("-p", partition))
    chunks = made.cut(list(range(waiting)), Resources(minutes=minutes), None, room=1000)
    assert len(chunks) == tasks and [item for chunk in chunks for item in chunk] == list(range(waiting))
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


def test_a_batch_is_no_larger_than_the_room_and_the_array_limit(fake):
    made = submission(fake, chunk=2)
    assert list(map(len, made.cut(list(range(10)), Resources(), None, room=3))) == [2, 2, 2]
    assert len(made.cut(list(range(3000)), Resources(), 1, room=5000)) == 1000


def test_more_than_any_node_has_is_refused_with_what_there_is(fake):
    made = submission(fake)
    made.check(Resources(cpus=2, gpus=2, mem_gb=20), "scan")
    with pytest.raises(ResourceError, match=r"'scan' .* partition main .*4 CPUs \(there are 2\).*scan.cpus=2"):
        made.check(Resources(cpus=4), "scan")
    two = "main|main*|1|64|1000|(null)|infinite\nmain|main*|1|2|100000|gpu:1|infinite\n"
    with pytest.raises(ResourceError, match=r"more at once .*8 CPUs, 1 GPU .*there are nodes with 64 CPUs, 0 GPUs"):
        submission(fake, nodes=two).check(Resources(cpus=8, gpus=1), "scan")
    with pytest.raises(ResourceError, match=r"no such partition. Got: gpu. There are: long, main"):
        submission(fake, args=("--partition=gpu",))
