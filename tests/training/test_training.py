"""The training core: splits, the loop, checkpoints, the log, the card; with a toy whose answer is known."""

import csv
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from biascorr_pydra import weights
from biascorr_pydra.errors import InvalidParameterError, RunLockedError, TrainingError, UnknownMethodError
from biascorr_pydra.interfaces.cli import main, train
from biascorr_pydra.lock import exclusive
from biascorr_pydra.methods import training_names
from biascorr_pydra.training import run
from biascorr_pydra.training.base import CardText, Split, Training, option, split_by_subject, subject_of
from biascorr_pydra.training.config import configure, keep


@dataclass(frozen=True)
class Toy(Training):
    """y = 3 x, by a network of one number."""

    slope: float = option(3.0, "What is to be learnt.")
    method = "toy"
    text = CardText("Nobody, 2026", ["y = a x"], ["a"], [], ["a toy"])

    def split(self) -> Split:
        return split_by_subject(sorted(Path(self.data).glob("*.txt")), self.held_out, data=self.data)

    def build(self):
        return torch.nn.Linear(1, 1, bias=False)

    def open(self, files):
        return [float(file.read_text()) for file in files]

    def sample(self, data, generator):
        return {"x": torch.randn((self.batch, 1), generator=generator) + data[0]}

    def loss(self, network, batch):
        error = network(batch["x"]) - self.slope * batch["x"]
        noise = torch.rand(()) * 0  # torch's own generator is drawn from, too
        return (error**2).mean() + noise, {"bias": error.detach().mean()}

    def score(self, network, data):
        return {"slope": network.weight.item(), "n": len(data)}


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for i in range(10):
        (data / f"sub-{i:02d}_x.txt").write_text("0.5")
    return data


def toy(folder, out, **changes):
    values = {"steps": 12, "batch": 4, "learning_rate": 0.5, "log_every": 3, "checkpoint_every": 4}
    return Toy(data=str(folder), out=str(out), **{**values, **changes})


def test_a_run_learns_and_writes_weights_card_log_and_plot(folder, tmp_path):
    reports = []
    card = run.run(toy(folder, tmp_path / "out", steps=200, licence="CC0"), reports.append)
    assert card["scores"]["held_out"]["slope"] == pytest.approx(3, abs=0.05)
    assert card["scores"]["held_out"]["n"] == 1
    state, read = weights.load(tmp_path / "out" / "toy.safetensors")
    assert state["weight"].item() == card["scores"]["held_out"]["slope"]
    assert read == card
    assert card["training"]["steps_done"] == 200
    assert card["training_data"]["licence"] == "CC0"
    assert len(card["training_data"]["trained_on"]) == 9
    assert not {*card["training_data"]["trained_on"]} & {*card["training_data"]["held_out"]}
    assert str(tmp_path) not in json.dumps(card)
    assert [p.step for p in reports] == [*range(3, 200, 3), 200]
    assert reports[-1].share == 1
    assert reports[-1].row["loss"] < 0.1 * reports[0].row["loss"]
    assert (tmp_path / "out" / "losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("killed_at", [6, 8])
def test_a_killed_run_goes_on_to_the_same_weights_and_the_same_log(folder, tmp_path, monkeypatch, killed_at):
    whole = run.run(toy(folder, tmp_path / "whole"))
    update, calls = Toy.update, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == killed_at:
            raise SystemExit  # as sudden as a kill: nothing is saved on the way out
        return update(self, *args)

    monkeypatch.setattr(Toy, "update", killed)
    with pytest.raises(SystemExit):
        run.run(toy(folder, tmp_path / "killed"))
    assert not (tmp_path / "killed" / "toy.safetensors").exists()
    assert run.run(toy(folder, tmp_path / "killed"))["sha256"] == whole["sha256"]
    assert len(calls) == killed_at + 12 - 4  # from the checkpoint of step 4
    lines = [(tmp_path / out / "log.tsv").read_text().splitlines() for out in ("whole", "killed")]
    logs = [list(csv.DictReader(log, delimiter="\t")) for log in lines]
    assert [{**row, "seconds": 0} for row in logs[0]] == [{**row, "seconds": 0} for row in logs[1]]
    assert [row["step"] for row in logs[0]] == ["3", "6", "9", "12"]


def test_ctrl_c_between_steps_keeps_every_step(folder, tmp_path, monkeypatch):
    whole = run.run(toy(folder, tmp_path / "whole"))
    sample, calls = Toy.sample, []

    def interrupted(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(toy(folder, tmp_path / "stopped"), interrupted)  # told at step 3, before any checkpoint is due
    monkeypatch.setattr(Toy, "sample", lambda *args: calls.append(1) or sample(*args))
    assert run.run(toy(folder, tmp_path / "stopped"))["sha256"] == whole["sha256"]
    assert len(calls) == 9


def test_a_finished_run_is_only_scored_again(folder, tmp_path, monkeypatch):
    first = run.run(toy(folder, tmp_path / "out"))
    monkeypatch.setattr(Toy, "sample", None)
    assert run.run(toy(folder, tmp_path / "out"))["sha256"] == first["sha256"]


def test_what_cannot_go_on_says_why(folder, tmp_path):
    out = tmp_path / "out"
    run.run(toy(folder, out))
    with pytest.raises(InvalidParameterError, match=r"seed 1, at first 0.*another output folder"):
        run.run(toy(folder, out, seed=1))
    with exclusive(out, {}), pytest.raises(RunLockedError, match="another run"):
        run.run(toy(folder, out))
    (out / "checkpoint.pt").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt.*Remove it"):
        run.run(toy(folder, out))
    with pytest.raises(TrainingError, match="finite"):
        run.run(toy(folder, tmp_path / "nan", slope=float("inf")))


def test_a_run_in_bfloat16_is_mixed_and_learns(folder, tmp_path):
    card = run.run(toy(folder, tmp_path / "out", steps=100, precision="bfloat16"))
    assert "bfloat16 (mixed)" in card["training"]["hardware"]
    assert card["scores"]["held_out"]["slope"] == pytest.approx(3, abs=0.1)
    state, _ = weights.load(tmp_path / "out" / "toy.safetensors")
    assert state["weight"].dtype == torch.float32


def test_a_bound_in_time_ends_a_run_and_its_schedule(folder, tmp_path):
    card = run.run(toy(folder, tmp_path / "out", steps=10**9, minutes=0.002))
    assert 0 < card["training"]["steps_done"] < 10**6
    assert card["training"]["minutes_allowed"] == 0.002


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"minutes": -1.0}, "minutes"),
        ({"device": "tpu"}, "device"),
        ({"precision": "float8"}, "precision"),
    ],
)
def test_values_out_of_range_are_refused(folder, tmp_path, change, words):
    with pytest.raises(InvalidParameterError, match=words):
        toy(folder, tmp_path, **change)


# --- the split


def files(*names):
    return [Path("d") / name for name in names]


def test_subjects():
    assert subject_of(Path("sub-01_ses-2_T1w.nii.gz")) == "sub-01"
    assert subject_of(Path("sub-A1.nii")) == "sub-A1"
    assert subject_of(Path("seg_17.nii.gz")) == "seg_17"


def test_all_files_of_a_subject_are_on_one_side():
    scans = files(*[f"sub-{s:02d}_ses-{t}_T1w.nii.gz" for s in range(20) for t in (1, 2)])
    split = split_by_subject(scans, "0.2", data="d")
    held_out = {subject_of(f) for f in split.held_out}
    assert len(held_out) == 4
    assert len(split.held_out) == 8
    assert not held_out & {subject_of(f) for f in split.train}
    assert len(split.train) == 32
    # The choice does not depend on the order, and only a new subject may change sides when one is added.
    assert split_by_subject(scans[::-1], "0.2", data="d") == split
    more = split_by_subject([*scans, *files("sub-99_T1w.nii.gz")], "4", data="d")
    assert len(held_out - {subject_of(f) for f in more.held_out}) <= 1


def test_held_out_by_name_and_wrong_ones():
    scans = files("seg_01.nii.gz", "seg_17.nii.gz", "seg_18.nii.gz")
    assert split_by_subject(scans, "seg_17, seg_18", data="d").held_out == scans[1:]
    assert split_by_subject(scans, "0", data="d").held_out == []
    for text, words in (("seg_99", "seg_99"), ("3", "3 held out"), ("-1", "share"), ("1.5", "share")):
        with pytest.raises(InvalidParameterError, match=words):
            split_by_subject(scans, text, data="d")
    with pytest.raises(InvalidParameterError, match="0 subjects"):
        split_by_subject([], "0.1", data="d")


def test_names_are_file_names():
    assert training_names() == sorted(training_names())
    assert "ubc" in training_names()


# --- the configuration, and the command


def command(*arguments):
    return CliRunner().invoke(main.cli, ["train", *map(str, arguments)])


@pytest.fixture
def toy_command(monkeypatch):
    monkeypatch.setattr(train, "training_names", lambda: ["toy"])
    monkeypatch.setattr(train, "get_training", lambda name: {"toy": Toy}[name])


def test_options_override_the_file_which_overrides_defaults(folder, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(f'method = "toy"\ndata = "{folder}"\nsteps = 7\nlearning-rate = 1\nheld_out = 2\n')
    config = configure(Toy, {"out": str(tmp_path), "steps": 9, "batch": None}, file)
    assert (config.steps, config.learning_rate, config.batch, config.held_out) == (9, 1.0, 4, "2")
    kept = keep(config, tmp_path)
    assert configure(Toy, {}, kept) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz = 3", r"c\.toml.*no such option|no such option.*stepz"),
        ('steps = "many"', "steps is a whole number"),
        ("steps = true", "steps is a whole number"),
        ('learning_rate = "fast"', "learning_rate is a number"),
        ('method = "n4"', "for toy"),
        ("steps = = 3", "can be read"),
        ("steps = 3", "needs data"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, words):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InvalidParameterError, match=words):
        configure(Toy, {}, tmp_path / "c.toml")
    with pytest.raises(InvalidParameterError, match="can be read"):
        configure(Toy, {}, tmp_path / "absent.toml")
    with pytest.raises(InvalidParameterError, match=r"\.toml or \.json"):
        configure(Toy, {}, tmp_path / "c.yaml")


def test_the_command_trains_goes_on_and_says_what_came_out(folder, tmp_path, toy_command):
    arguments = ["toy", "--data", folder, "--out", tmp_path / "out", "--learning-rate", "0.5", "--steps", "40"]
    done = command(*arguments)
    assert done.exit_code == 0, done.output
    assert "40 steps" in done.output
    assert "held out, slope: " in done.output
    assert "step 20, loss" in done.output
    again = command(*arguments, "--seed", "3")
    assert isinstance(again.exception, InvalidParameterError)


def test_help_lists_every_option_with_its_default(toy_command):
    text = command("toy", "--help").output
    for name in Toy.options():
        assert f"--{name.replace('_', '-')}" in text
    assert "[default: 2000]" in " ".join(text.split())


def test_a_method_without_training_is_an_error_that_names_those_with_one():
    done = command("ants-n4", "--data", "x", "--out", "y")
    assert isinstance(done.exception, UnknownMethodError)
    assert "ubc" in str(done.exception)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_keeps_it(folder, tmp_path, toy_command, monkeypatch, number):
    update, calls = Toy.update, []

    def update_and_signal(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return update(self, *arguments)

    arguments = ["toy", "--data", folder, "--steps", "5", "--out"]
    assert command(*arguments, tmp_path / "whole").exit_code == 0
    monkeypatch.setattr(Toy, "update", update_and_signal)
    stopped = command(*arguments, tmp_path / "stopped")
    assert stopped.exit_code == 130
    assert "go on" in stopped.output
    assert command(*arguments, tmp_path / "stopped").exit_code == 0
    assert len(calls) == 5
    states = [weights.load(tmp_path / out / "toy.safetensors")[0]["weight"] for out in ("whole", "stopped")]
    assert torch.equal(*states)


# --- as a Pydra workflow


def test_the_workflow_trains_each_method_in_its_folder_and_looks_again_each_time(folder, tmp_path, monkeypatch):
    from biascorr_pydra import methods
    from biascorr_pydra.interfaces.pydra.train import TrainCorrectors, hooks

    monkeypatch.setattr(methods, "get_training", lambda name: {"toy": Toy}[name])
    chosen = {"method": ["toy"], "data_dir": folder, "out_dir": tmp_path / "out", "options": {"steps": 4}}
    for run_id in "ab":
        task = TrainCorrectors(**chosen, run_id=run_id)
        done = task(worker="debug", cache_root=tmp_path / "work")
        _, card = weights.load(tmp_path / "out" / "toy" / "toy.safetensors")
        assert json.loads(Path(str(done.card_files[0])).read_text()) == card
        assert weights.sha256(str(done.weights_files[0])) == card["sha256"]
        assert card["training"]["steps_done"] == 4
        (tmp_path / "out" / "toy" / "toy.safetensors").unlink()  # written again by the second run
    named = hooks.prepare(TrainCorrectors(**chosen), False, None)
    assert named.run_id
    for wrong, words in (({"options": {"stepz": 1}}, "stepz"), ({"data_dir": tmp_path / "no"}, "0 subjects")):
        with pytest.raises(InvalidParameterError, match=words):
            hooks.prepare(TrainCorrectors(**{**chosen, **wrong}), False, None)


def test_training_on_cuda_asks_for_a_gpu():
    from biascorr_pydra.interfaces.pydra.train import TrainCorrector
    from biascorr_pydra.resources import declared

    asked = [declared(TrainCorrector(method="toy", data_dir=".", out_dir=".", device=d)) for d in ("cpu", "cuda")]
    assert [spec.gpus for spec in asked] == [0, 1]
