"""The correction methods: those of this package, one folder each, and those that other packages register.

A folder's name is its method's name, with _ for -. Other packages name theirs by entry points of the group
:data:`GROUP`, ``NAME = "module:Class"``, and their trainings, if they have any, by :data:`TRAINING_GROUP`. The listing
comes from the names of folders and entry points, so that naming the methods loads none of them (and not torch).

A method of another package that cannot be used is listed too: whoever uses it is told its package and what is wrong,
and the rest works.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from biascorr_pydra.errors import BiasCorrError, BrokenMethodError, UnknownMethodError

if TYPE_CHECKING:
    from biascorr_pydra.training.base import Training

    from .corrector import Corrector

__all__ = [
    "DEFAULT_METHOD",
    "GROUP",
    "REFERENCE_METHOD",
    "TRAINING_GROUP",
    "clashes",
    "get_corrector",
    "get_training",
    "method_names",
    "training_names",
]

#: What corrects where no method is named; docs/deepem.md tells why.
DEFAULT_METHOD = "deepem"
#: What others are held against, what a scan is corrected by before its tissues are segmented for all methods alike, and
#: what takes the place of ANTs' N4 in other people's workflows.
REFERENCE_METHOD = "n4"
#: Entry points of other packages' correctors and of their trainings.
GROUP = "biascorr_pydra.methods"
TRAINING_GROUP = "biascorr_pydra.training"

#: Names are parts of folder names and of METHOD:PRESET.
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FACTS = ("name", "version", "summary", "references")


def method_names() -> list[str]:
    """Names of the methods, sorted, those that are broken among them."""
    return sorted({*_own_names("corrector.py"), *_plugins(GROUP)})


def get_corrector(name: str) -> type[Corrector]:
    """The corrector class of that name.

    Raises
    ------
    UnknownMethodError
    BrokenMethodError
        Another package registered it, but it cannot be imported, does not keep the contract
        (:mod:`biascorr_pydra.methods.corrector`), or several packages registered the name.
    """
    if name in _own_names("corrector.py"):
        return import_module(f"{__package__}.{name.replace('-', '_')}.corrector").CORRECTOR
    points = _plugins(GROUP).get(name, [])
    if not points:
        raise UnknownMethodError(
            "no correction method of that name",
            value=repr(name),
            next_step=f"Methods: {', '.join(method_names())} (see `biascorr methods`).",
        )
    corrector = _load(points)
    if fault := _fault(corrector, name):
        raise _broken(points[0], fault)
    return corrector


def clashes() -> dict[str, BrokenMethodError]:
    """Entry points with the name of a method of this package; the package's own is used."""
    own = _own_names("corrector.py")
    return {
        name: _broken(points[0], "a method of biascorr_pydra has that name, and is used instead")
        for name, points in _plugins(GROUP).items()
        if name in own
    }


def training_names() -> list[str]:
    """Names of the methods that can be trained, sorted."""
    trained = {*_own_names("training.py"), *_plugins(TRAINING_GROUP)}
    return sorted(trained & set(method_names()))


def get_training(name: str) -> type[Training]:
    """The training configuration class of the method of that name.

    Raises
    ------
    UnknownMethodError
    BrokenMethodError
        Another package registered it, and it cannot be imported.
    """
    if name not in training_names():
        raise UnknownMethodError(
            "no method of that name can be trained",
            value=repr(name),
            next_step=f"Methods with a training: {', '.join(training_names())}.",
        )
    if name in _own_names("training.py"):
        return import_module(f"{__package__}.{name.replace('-', '_')}.training").TRAINING
    return _load(_plugins(TRAINING_GROUP)[name])


def _own_names(file: str) -> set[str]:
    """Names of the methods of this package whose folders hold a file of that name."""
    return {path.parent.name.replace("_", "-") for path in Path(__file__).parent.glob(f"*/{file}")}


def _plugins(group: str) -> dict[str, list[EntryPoint]]:
    """The entry points of other packages by name; several of one name are a fault."""
    plugins: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        others = plugins.setdefault(point.name, [])
        # A package that is installed twice, as in a folder and as itself, registers the same thing twice.
        if (point.value, _package(point)) not in [(other.value, _package(other)) for other in others]:
            others.append(point)
    return plugins


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown package"


def _load(points: list[EntryPoint]) -> type:
    """What an entry point names.

    Raises
    ------
    BrokenMethodError
    """
    if len(points) > 1:
        raise _broken(points[0], f"{' and '.join(map(_package, points))} both register it")
    try:
        return points[0].load()
    except BiasCorrError as error:
        raise _broken(points[0], str(error)) from error
    except Exception as error:  # whatever another package's import raises
        raise _broken(points[0], f"{type(error).__name__}: {error}") from error


def _fault(corrector: type, name: str) -> str | None:
    """What a class lacks of the contract, or None."""
    from .corrector import Corrector

    if not NAME.fullmatch(name):
        return "a name consists of small letters and digits, with - between them"
    if not (isinstance(corrector, type) and issubclass(corrector, Corrector)):
        return f"{corrector!r} is no subclass of biascorr_pydra.methods.Corrector"
    if inspect.isabstract(corrector):
        return "the class does not define estimate"
    missing = [fact for fact in FACTS if not getattr(corrector, fact, None)]
    if missing:
        return f"the class states no {', '.join(missing)}"
    if corrector.name != name:
        return f"the class calls itself {corrector.name!r}"
    try:
        for preset in corrector.presets:
            corrector.from_options(preset)
    except Exception as error:  # whatever another package's class raises
        return f"preset {preset!r} cannot be made: {error}"
    return None


def _broken(point: EntryPoint, fault: str) -> BrokenMethodError:
    return BrokenMethodError(
        f"method {point.name!r} of package {_package(point)} ({point.value}) cannot be used",
        value=fault,
        next_step="Mend or remove that package; other methods are not affected.",
    )
