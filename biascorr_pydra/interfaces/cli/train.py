"""`biascorr train METHOD`: a method's training from the shell; the options are the fields of its configuration."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING
from typing import Any, get_args, get_type_hints

import click

from biascorr_pydra.errors import UnknownMethodError
from biascorr_pydra.methods import get_training, training_names

__all__ = ["train"]


class _Methods(click.Group):
    """One command a method, made when it is asked for: listing them loads neither torch nor a training."""

    def list_commands(self, context: click.Context) -> list[str]:
        return training_names()

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        try:
            return _command(get_training(name))
        except UnknownMethodError:
            return None

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in training_names():
            get_training(arguments[0])  # its error names the methods that there are
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Methods"):
            formatter.write_dl([(name, f"see `biascorr train {name} --help`") for name in training_names()])


@click.group(cls=_Methods, subcommand_metavar="METHOD [OPTIONS]")
def train() -> None:
    """Train a method on data of one's own; writes weights, their card, a log and its plot to a folder.

    Run the same command again to go on after an interruption. The weights are used by
    `biascorr correct IN OUT --method METHOD --set weights_file=OUT/METHOD.safetensors`.
    """


def _command(cls) -> click.Command:
    hints = get_type_hints(cls)
    options: list[click.Parameter] = [
        click.Option(["--config", "config_file"], metavar="FILE", help="Options from a .toml or .json file.")
    ]
    for name, (default, words) in cls.options().items():
        shown = "" if default in (MISSING, None, "") else f"  [default: {_text(default)}]"
        flag = f"--{name.replace('_', '-')}"
        flags = [f"{flag}/--no-{flag[2:]}"] if hints[name] is bool else [flag]
        options.append(click.Option([*flags, name], type=_type(hints[name]), default=None, help=words + shown))
    return click.Command(
        cls.method,
        params=options,
        callback=lambda **values: _train(cls, values),
        help=f"Train {cls.method}: {cls.text.paper}",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _text(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _type(hint: Any) -> click.ParamType:
    for kind, parameter_type in ((bool, click.BOOL), (int, click.INT), (float, click.FLOAT), (str, click.STRING)):
        if hint is kind or kind in get_args(hint):
            return _List(parameter_type) if str(hint).startswith("tuple") else parameter_type
    raise TypeError(f"a training's option of type {hint}")


class _List(click.ParamType):
    """Values separated by commas."""

    def __init__(self, inner: click.ParamType):
        self.inner, self.name = inner, f"{inner.name},..."

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(self.inner.convert(part.strip(), param, context) for part in value.split(","))


def _train(cls, values: dict[str, Any]) -> None:
    from biascorr_pydra.training.config import configure
    from biascorr_pydra.training.run import run

    config = configure(cls, values, values.pop("config_file"))
    try:
        with _shown(config) as tell, _asked_to_stop() as stop:
            card = run(config, tell, stop)
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again to go on from here.", err=True)
        sys.exit(130)
    done = card["training"]
    click.echo(f"{done['steps_done']} steps, {done['minutes']} minutes, sha256 {card['sha256']}")
    for name, value in card["scores"]["held_out"].items():
        click.echo(f"held out, {name}: {value:.4g}" if isinstance(value, float) else f"held out, {name}: {value}")
    click.echo(f"Weights and card: {config.out}/{cls.method}.safetensors, .json; log: log.tsv, losses.png")


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C, or a batch system's SIGTERM, has come: the step at hand is done first; a second is at once."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _shown:  # noqa: N801 (used as a function)
    """Progress as a bar on a terminal, a line for each line of the log elsewhere."""

    def __init__(self, config):
        self.config, self.bar = config, None

    def __enter__(self):
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True))
            self.row = self.bar.add_task(self.config.method, total=1.0)
            self.bar.start()
        return self.tell

    def __exit__(self, *error):
        if self.bar:
            self.bar.stop()

    def tell(self, progress: Any) -> None:
        words = f"step {progress.step}, loss {progress.row['loss']:.4g}"
        if self.bar:
            self.bar.update(self.row, completed=progress.share, description=f"{self.config.method} {words}")
        else:
            click.echo(f"{words}, {progress.seconds / 60:.1f} min, {progress.share:.0%}", err=True)
