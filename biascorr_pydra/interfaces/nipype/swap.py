"""Swap ANTs' N4 in a workflow that somebody else has built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from biascorr_pydra import __version__
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.methods import REFERENCE_METHOD, get_corrector
from biascorr_pydra.methods.spec import MethodSpec

from .base import declare
from .n4 import METHOD_TRAITS, BiascorrN4, BiascorrShiftedN4, set_traits, unhonoured

from nipype import logging  # isort: skip (after the base, which explains its absence)
from nipype.interfaces.ants import N4BiasFieldCorrection  # isort: skip
from nipype.interfaces.base import isdefined  # isort: skip
from nipype.pipeline.engine import JoinNode, MapNode, Workflow  # isort: skip

__all__ = ["SwappedNode", "nodes_of", "use_biascorr"]

SHIFTING = "niworkflows.interfaces.fixes.FixN4BiasFieldCorrection"


class SwappedNode(NamedTuple):
    """One node that was swapped.

    Attributes
    ----------
    name : its name within the workflow, with those of the workflows it is nested in
    method : what corrects now
    set_aside : traits of N4 that were set or connected and that the method has no use for
    """

    name: str
    method: str
    set_aside: tuple[str, ...]


def use_biascorr(
    workflow: Workflow,
    method: str = REFERENCE_METHOD,
    *,
    options: Mapping[str, Any] | None = None,
    use_gpu: bool = False,
) -> list[SwappedNode]:
    """Swap every node of ANTs' N4 in a built Nipype workflow, nested ones too, for a method of this package.

    Nodes are changed in place: names, edges, iterfields, iterables and everything else of the node stay. Its processors
    and memory become those that the method needs. The boilerplate of a niworkflows workflow gets a sentence about it.

    Parameters
    ----------
    workflow : Nipype Workflow, built and not yet run
    method : str
        See `biascorr methods`. With n4, the nodes' parameters keep their meaning. Another method sets aside what it has
        no use for; each node's list of that is returned, logged as a warning, and kept in the node's ``set_aside``.
    options : dict, optional
        Parameters of the method that N4's traits do not speak of.
    use_gpu : bool
        Run these nodes on a GPU.

    Returns
    -------
    list of SwappedNode
        Empty, with a warning, where the workflow has no N4.

    Raises
    ------
    UnknownMethodError
    InvalidParameterError
        A node asks for something that cannot be honoured, or is a kind of N4 or of node that is not known; the message
        names it, and the workflow is as it was.
    """
    MethodSpec.parse(method).corrector()
    log = logging.getLogger("nipype.workflow")
    connected = set(_connected_inputs(workflow))
    planned = []
    for name, node in nodes_of(workflow):
        if isinstance(node.interface, N4BiasFieldCorrection):
            wanted = set_traits(node.inputs) | _iterated(node)
            wanted |= {field for field in unhonoured(method) if f"{name}.{field}" in connected}
            set_aside = tuple(sorted(wanted & unhonoured(method) & METHOD_TRAITS))
            planned.append((name, node, _stand_in(name, node, method, options, use_gpu, set_aside), set_aside))
    swapped = []
    for name, node, interface, set_aside in planned:
        _replace(node, interface)
        declare(node, method, use_gpu=use_gpu)
        swapped.append(SwappedNode(name, method, set_aside))
        log.info("%s: N4 of ANTs swapped for %s of biascorr_pydra %s", name, method, __version__)
        if set_aside:
            log.warning("%s: %s has no use for %s, set aside", name, method, ", ".join(set_aside))
    if swapped:
        _tell_boilerplate(workflow, swapped)
    else:
        log.warning("%s has no node of ANTs' N4; nothing was swapped", workflow.name)
    return swapped


def nodes_of(workflow: Workflow, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every node of a built workflow, nested ones too, with its name."""
    for node in workflow._graph.nodes():
        if isinstance(node, Workflow):
            yield from nodes_of(node, f"{prefix}{node.name}.")
        else:
            yield f"{prefix}{node.name}", node


def _iterated(node) -> set[str]:
    """Inputs that a node's iterables set, one or several at a time."""
    iterables = [node.iterables] if isinstance(node.iterables, tuple) else node.iterables or []
    if iterables and all(isinstance(field, str) for field in iterables[0]):  # [fields, values], synchronized
        return set(iterables[0])
    return {field for field, _ in iterables}


def _connected_inputs(workflow: Workflow, prefix: str = "") -> Iterator[str]:
    """Every input that an edge leads to, as node.input, nested ones too."""
    for _, target, data in workflow._graph.edges(data=True):
        for _, field in data["connect"]:
            yield f"{prefix}{target.name}.{field}"
    for node in workflow._graph.nodes():
        if isinstance(node, Workflow):
            yield from _connected_inputs(node, f"{prefix}{node.name}.")


def _stand_in(name, node, method, options, use_gpu, set_aside) -> BiascorrN4:
    """The interface to put in a node's place, with its values; nothing is changed yet."""
    old = node.interface
    kind = f"{type(old).__module__}.{type(old).__qualname__}"
    if type(old) is not N4BiasFieldCorrection and kind != SHIFTING:
        raise InvalidParameterError("a node's interface is a kind of N4 that is not known here", file=name, value=kind)
    if isinstance(node, JoinNode):
        raise InvalidParameterError("N4 takes one image, which a JoinNode does not give it", file=name)
    new = (BiascorrShiftedN4 if kind == SHIFTING else BiascorrN4)(
        method=method, use_gpu=use_gpu, use_cuda=use_gpu, **({"options": dict(options)} if options else {})
    )
    if set_aside:
        new.inputs.set_aside = list(set_aside)
    for trait in set_traits(old.inputs):
        setattr(new.inputs, trait, getattr(old.inputs, trait))
    try:
        new.check()
    except InvalidParameterError as error:
        raise InvalidParameterError(error.rule, file=name, value=error.value, next_step=error.next_step) from error
    return new


def _replace(node, interface: BiascorrN4) -> None:
    old = node.inputs
    node._interface = interface
    if isinstance(node, MapNode):
        # A MapNode keeps its own copy of the inputs, in which the iterfields take lists.
        node._inputs = node._create_dynamic_traits(interface.inputs, fields=node.iterfield)
        for field in node.iterfield:
            value = getattr(old, field)
            if isdefined(value):
                setattr(node._inputs, field, value)
        node._inputs.on_trait_change(node._set_mapnode_input)
    node._hashvalue = node._hashed_inputs = None


def _tell_boilerplate(workflow: Workflow, swapped: list[SwappedNode]) -> None:
    """Say in a niworkflows workflow's boilerplate who corrects now; its own text goes on naming ANTs."""
    if not hasattr(workflow, "__postdesc__"):
        return
    corrector = get_corrector(MethodSpec.parse(swapped[0].method).method)
    sentence = (
        f"\nIntensity non-uniformity was corrected by *biascorr_pydra* {__version__} in place of ANTs' "
        f"`N4BiasFieldCorrection`, with method `{corrector.name}` ({corrector.summary}; {corrector.citation()}), "
        f"in: {', '.join(node.name for node in swapped)}.\n"
    )
    workflow.__postdesc__ = (workflow.__postdesc__ or "") + sentence
