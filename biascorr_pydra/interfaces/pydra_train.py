"""Training as a Pydra workflow: one task a method, each placed where it asks to be."""

import uuid
from pathlib import Path
from typing import Any

from fileformats.application import Json
from fileformats.generic import File
from pydra.compose import python, workflow

from ..resources import Resources, requires

__all__ = ["TrainCorrector", "TrainCorrectors"]


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
    from ..train import get_training
    from ..train._config import configure
    from ..train._run import run

    cls = get_training(method)
    folder = Path(out_dir) / method
    given = {**(options or {}), "data": str(data_dir), "out": str(folder), "device": device}
    run(configure(cls, given, config_file and str(config_file)))
    return folder / f"{method}.safetensors", folder / f"{method}.json"


@workflow.define(outputs=["weights_files"])
def TrainCorrectors(  # noqa: N802
    method: list[str],
    data_dir: Path,
    out_dir: Path,
    config_file: File | None = None,
    options: dict[str, Any] | None = None,
    device: str = "auto",
) -> list[File]:
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

    Returns
    -------
    weights_files : list
        the weights, their cards beside them
    """
    chosen = {"data_dir": data_dir, "out_dir": str(out_dir), "config_file": config_file, "options": options}
    task = TrainCorrector(**chosen, device=device, run_id=uuid.uuid4().hex).split(method=method).combine("method")
    return workflow.add(task, name="train").weights_file
