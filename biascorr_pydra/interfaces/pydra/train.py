"""Training as a Pydra workflow: one task a method, each placed where it asks to be."""

import uuid
from pathlib import Path
from typing import Any, cast

import attrs
from fileformats.application import Json
from fileformats.generic import File
from pydra.compose import python, workflow

from biascorr_pydra.resources import Resources, requires

__all__ = ["TrainCorrector", "TrainCorrectors", "hooks"]


def _needs(task) -> Resources:
    return Resources(gpus=int(task.device == "cuda"), mem_gb=4.0)


@requires(_needs)
@python.define(outputs=["weights_file", "card_file"])
def TrainCorrector(  # noqa: N802
    method: str,
    data_dir: Path,
    out_dir: str,
    config_file: File | None = None,
    options: dict[str, Any] | None = None,
    device: str = "auto",
    run_id: str = "",
) -> tuple[File, Json]:
    """Train one method, or go on from the last checkpoint in its folder.

    Parameters
    ----------
    method : str
        a method with a training, see `biascorr train --help`
    data_dir : Path
        training data
    out_dir : str
        weights, card, checkpoint and log go to a folder of the method's name in here
    config_file : File
        options, .toml or .json
    options : dict
        options on top of the file's
    device : str
        auto, cpu or cuda; cuda asks for a GPU
    run_id : str
        part of the cache key: each run looks at its checkpoint again

    Returns
    -------
    weights_file : File
        .safetensors
    card_file : Json
        its card
    """
    from biascorr_pydra.training.run import run

    folder = Path(out_dir) / method
    run(_configured(method, data_dir, folder, config_file, options, device))
    return cast(tuple[File, Json], (folder / f"{method}.safetensors", folder / f"{method}.json"))


@workflow.define(outputs=["weights_files", "card_files"])
def TrainCorrectors(  # noqa: N802
    method: list[str],
    data_dir: Path,
    out_dir: Path,
    config_file: File | None = None,
    options: dict[str, Any] | None = None,
    device: str = "auto",
    run_id: str = "",
) -> tuple[list[File], list[Json]]:
    """Train methods on data of one's own, each on a GPU of its own where --device cuda is given.

    Parameters
    ----------
    method : list
        methods with a training; repeatable
    data_dir : Path
        training data: photographs, label maps or a BIDS data set, as the method takes them
    out_dir : Path
        weights, cards, checkpoints and logs, a folder a method; run again to go on
    config_file : File
        options, .toml or .json
    options : dict
        options on top of the file's, as JSON
    device : str
        auto, cpu or cuda
    run_id : str
        passed on to the tasks; `pydra run` gives each run its own

    Returns
    -------
    weights_files : list
        .safetensors, a copy of those in out_dir
    card_files : list
        their cards
    """
    chosen = {"data_dir": data_dir, "out_dir": str(out_dir), "config_file": config_file, "options": options}
    task = TrainCorrector(**chosen, device=device, run_id=run_id).split(method=method).combine("method")
    trained = workflow.add(task, name="train")
    return trained.weights_file, trained.card_file


def _configured(method: str, data_dir, folder: Path, config_file, options, device: str):
    from biascorr_pydra.methods import get_training
    from biascorr_pydra.training.config import configure

    given = {**(options or {}), "data": str(data_dir), "out": str(folder), "device": device}
    return configure(get_training(method), given, config_file and str(config_file))


class TrainHooks:
    """What `pydra run` asks; see :class:`biascorr_pydra.interfaces.pydra.run.RunHooks`."""

    def prepare(self, task: Any, rerun: bool, worker: Any) -> Any:
        """Check methods, options, data and resources before anything runs, and name the run."""
        chosen = task.data_dir, Path(task.out_dir), task.config_file, task.options, task.device
        for method in task.method:
            _configured(method, chosen[0], chosen[1] / method, *chosen[2:]).split()
        if hasattr(worker, "check"):
            worker.check(TrainCorrector(method="any", data_dir=".", out_dir=".", device=task.device), "train")
        return attrs.evolve(task, run_id=uuid.uuid4().hex)


hooks = TrainHooks()
