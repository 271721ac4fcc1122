"""Pickles in which Pydra's task classes are names, where they can be imported by name.

Pydra builds a task's class anew from the decorated function and leaves it without its module's name, so cloudpickle
writes the whole class, with its function and everything that refers to, into each job and each result: 8 to 100 kB,
and milliseconds, every time. A class that its module holds under its own name goes as that name here. Classes of
scripts and notebooks, and of modules registered to travel by value, still travel whole.
"""

from __future__ import annotations

import copyreg
import io
import sys
from importlib import import_module
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import list_registry_pickle_by_value

from .engine import Outputs, Result, Task, function_of, unpickled_parts

__all__ = ["dump", "dumps", "know"]

_task_of: dict[type, type[Task]] = {}


def know(task_class: type[Task]) -> None:
    """Remember which task an outputs class belongs to: the class itself does not say."""
    _task_of.setdefault(task_class.Outputs, task_class)


def dump(content: Any, stream) -> None:
    """Write a pickle that ``pickle.load`` reads where this package and the tasks' modules can be imported."""
    _Pickler(stream).dump(content)


def dumps(content: Any) -> bytes:
    """As :func:`dump`, into bytes."""
    stream = io.BytesIO()
    dump(content, stream)
    return stream.getvalue()


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj):
        if isinstance(obj, type):
            if issubclass(obj, Outputs) and obj in _task_of and (name := _name(_task_of[obj])):
                return _outputs, name
            if issubclass(obj, Task) and (name := _name(obj)):
                return _task, name
        if isinstance(obj, Result):  # which would pickle its outputs by itself, the long way
            state, apart = unpickled_parts(obj)
            for part in apart:
                state[part] = None if state[part] is None else dumps(state[part])
            return copyreg.__newobj__, (Result,), state  # type: ignore[attr-defined] # a name of pickle's protocol 2
        return super().reducer_override(obj)


def _name(task_class: type[Task]) -> tuple[str, str] | None:
    """Module and name under which the class can be imported, or None."""
    function = function_of(task_class)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or _travels_by_value(module):
        return None
    return (module, name) if getattr(sys.modules.get(module), name, None) is task_class else None


def _travels_by_value(module: str) -> bool:
    registered = list_registry_pickle_by_value()
    return any(module == name or module.startswith(name + ".") for name in registered)


def _task(module: str, name: str) -> type[Task]:
    task_class = getattr(import_module(module), name)
    know(task_class)
    return task_class


def _outputs(module: str, name: str) -> type[Outputs]:
    return _task(module, name).Outputs
