"""The registry of metrics: each one is declared once, where its function is, and everything else follows from that.

A metric is a function with a declaration above it::

    @metric("rim_cv", group="image", direction="lower", reference=HERE, label="CV of the rim",
            definition="Coefficient of variation of the outermost voxels of white matter", shown=True)
    def rim_cv(data, wm):
        ...

The names of the function's parameters say what it needs; parameters with a default are options, and are left alone:

===================  ===============================================================================================
group                what a function of this group may ask for
===================  ===============================================================================================
``image``            data, gm, wm, voxel_size_mm, gm_probability, wm_probability, and air where it is known
``field``            bias, mask
``score``            bias, true_bias, log_bias, true_log_bias, mask
``comparison``       anything: such a metric is called by name only, and is collected nowhere
===================  ===============================================================================================

From the declaration follow the metrics files, the columns of ``metrics.tsv`` and their data dictionary, the charts and
words of the pages, the tables of an evaluation, outliers, and the columns and summaries of ``biascorr bench``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from biascorr_pydra.errors import InvalidParameterError

__all__ = ["DIRECTIONS", "GROUPS", "METRICS", "Metric", "in_group", "metric", "shown_metrics"]

DIRECTIONS = ("lower", "higher", "one", "none")
#: What the functions of a group may ask for, by the names of their parameters; None: anything.
GROUPS: dict[str, frozenset[str] | None] = {
    "image": frozenset({"data", "gm", "wm", "voxel_size_mm", "gm_probability", "wm_probability", "air"}),
    "field": frozenset({"bias", "mask"}),
    "score": frozenset({"bias", "true_bias", "log_bias", "true_log_bias", "mask"}),
    "comparison": None,
}
#: Numbers of a scan that can be judged against its site's, by group: the value, or the change of it in percent.
PARTS: dict[str, tuple[str, ...]] = {"image": ("before", "after", "change"), "field": ("field",)}

LIKAR = "Likar et al. 2001, doi:10.1109/42.974934"
MAGNOTTA = "Magnotta et al. 2006, doi:10.1007/s10278-006-0264-x"
CHUA = "Chua et al. 2009, doi:10.1002/jmri.21768"
GANZETTI = "Ganzetti et al. 2016, doi:10.3389/fninf.2016.00010"
MRIQC = "MRIQC: Esteban et al. 2017, doi:10.1371/journal.pone.0184661"
SIMKO = "Simko et al., A generalized network for MRI intensity normalization, MIDL 2019"
DICE = "Dice 1945, doi:10.2307/1932409"
HUTTENLOCHER = "Huttenlocher et al. 1993, doi:10.1109/34.232073"
LIN = "Lin 1991, doi:10.1109/18.61115"
HERE = "this package"


@dataclass(frozen=True)
class Metric:
    """One metric: what it is, and where it appears.

    Attributes
    ----------
    name : str
        Its key in files and its column in tables.
    function : callable
        Its parameters' names say what it needs, see the module; it raises UndefinedMetricError where it has no value.
    group : {'image', 'field', 'score', 'comparison'}
    direction : {'lower', 'higher', 'one', 'none'}
        Which values are better: lower, higher, nearest to one, or neither (a description).
    definition : str
        The equation, in words and symbols.
    reference : str
    unit : str
        "1" for a dimensionless number.
    label : str
        What people read in tables and charts; by default its name.
    advice : str
        What to say of the direction where "lower is better" and the like do not do.
    shown : bool
        Always in the tables, charts, evaluations and the bench, also while no scan has finished. Others are in the
        tables where a metrics file has them.
    headline : bool
        Its change is told in words: on a scan's page and in the methods text.
    compared : bool
        Methods are compared and tested by it in the bench, on known tissue. A report ranks by the judge alone.
    judged : of 'before', 'after', 'change' (image), or 'field' (field)
        The numbers by which a scan can be an outlier of its site.
    bench : str
        Its column in the tables of ``biascorr bench``; empty if it has none. By default, its name if it is of an image
        and shown.
    bench_text : str
        What that column is, in a few words.
    """

    name: str
    function: Callable[..., float] = field(repr=False)
    group: str
    direction: str
    definition: str
    reference: str
    unit: str = "1"
    label: str = ""
    advice: str = ""
    shown: bool = False
    headline: bool = False
    compared: bool = False
    judged: tuple[str, ...] = ()
    bench: str = ""
    bench_text: str = ""

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "label", self.label or self.name)
        if self.group == "image" and self.shown:
            object.__setattr__(self, "bench", self.bench or self.name)
        object.__setattr__(self, "bench_text", self.bench_text or self.label)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the parameters that have no default."""
        return _needs(self.function)

    def of(self, values: Mapping[str, Any]) -> float:
        """The metric of these values, by the names of the function's parameters.

        Raises
        ------
        UndefinedMetricError
            It has no value for these data.
        """
        return self.function(**{name: values[name] for name in self.needs})


#: The registry: name -> Metric, in the order in which they were declared.
METRICS: dict[str, Metric] = {}

_Function = TypeVar("_Function", bound=Callable[..., float])


def metric(name: str, **declaration: Any) -> Callable[[_Function], _Function]:
    """Declare a function as the metric of this name; ``declaration`` are attributes of :class:`Metric`.

    Raises
    ------
    InvalidParameterError
        There is a metric of this name, or the declaration is not one: see the attributes.
    """

    def declared(function: _Function) -> _Function:
        if name in METRICS:
            raise InvalidParameterError("a metric is declared once", value=name)
        METRICS[name] = Metric(name, function, **declaration)
        return function

    return declared


def in_group(group: str) -> list[Metric]:
    """The metrics of a group."""
    return [entry for entry in METRICS.values() if entry.group == group]


def shown_metrics(group: str) -> list[str]:
    """Names of the metrics of a group that are always in tables and charts."""
    return [entry.name for entry in in_group(group) if entry.shown]


def _needs(function: Callable[..., float]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty)


def _check(entry: Metric) -> None:
    if entry.group not in GROUPS:
        raise InvalidParameterError(f"a metric's group is one of {', '.join(GROUPS)}", value=entry.group)
    if entry.direction not in DIRECTIONS:
        raise InvalidParameterError(f"a direction is one of {', '.join(DIRECTIONS)}", value=entry.direction)
    allowed = GROUPS[entry.group]
    if allowed is not None and (unknown := set(entry.needs) - allowed):
        raise InvalidParameterError(
            f"a metric of the group {entry.group} is computed from {', '.join(sorted(allowed))}",
            value=f"{entry.name} asks for {', '.join(sorted(unknown))}",
        )
    parts = PARTS.get(entry.group, ())
    if unknown := set(entry.judged) - set(parts):
        raise InvalidParameterError(
            f"a metric of the group {entry.group} is judged by {', '.join(parts) or 'nothing'}",
            value=f"{entry.name}: {', '.join(sorted(unknown))}",
        )
