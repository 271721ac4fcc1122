"""What a job needs: its class's spec, its node's, and what the user overrides, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from biascorr_pydra.resources import Resources, Spec, declared

from .engine import Job, TaskHooks, is_workflow

__all__ = ["NodeResources", "Overrides", "is_one_piece", "needs", "needs_of", "node_resources"]

Overrides = Mapping[str, Mapping[str, Any]]  # node -> field -> number


@attrs.define(kw_only=True)
class NodeResources(TaskHooks):
    """Hooks of one node that carry what it needs: ``workflow.add(task, hooks=node_resources(gpus=1))``."""

    resources: Spec = attrs.field(factory=Resources)


def node_resources(spec: Spec | None = None, /, **numbers) -> NodeResources:
    """What one node of a workflow needs, in place of what its task's class says; see :class:`Resources`."""
    return NodeResources(resources=Resources(**numbers) if spec is None else spec)


def needs(job: Job, overrides: Overrides) -> Resources:
    """What a job needs; one CPU if nothing is said."""
    return needs_of(job.task, job.name, overrides, job.hooks)


def needs_of(task, name: str, overrides: Overrides, hooks: TaskHooks | None = None) -> Resources:
    """As :func:`needs`, for a task that is to run under a name."""
    return (_stated(task, hooks) or Resources()).updated(overrides.get(name, {}))


def is_one_piece(job: Job, overrides: Overrides) -> bool:
    """Whether a workflow is placed as a whole: it says what it needs, and no override names anything but it."""
    if not is_workflow(job.task) or set(overrides) - {job.name}:
        return False
    return _stated(job.task, job.hooks) is not None


def _stated(task, hooks: TaskHooks | None) -> Resources | None:
    if isinstance(hooks, NodeResources):
        return hooks.resources(task) if callable(hooks.resources) else hooks.resources
    return declared(task)
