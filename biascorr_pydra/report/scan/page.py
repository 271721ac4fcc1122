"""A scan's page as HTML. All texts go through jinja2's escaping: names, messages and metadata come from outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from biascorr_pydra import __version__
from biascorr_pydra.bids import NOT_CORRECTED
from biascorr_pydra.images.files import sha256
from biascorr_pydra.report.cohort.agreement import disagreements_of
from biascorr_pydra.report.cohort.boilerplate import boilerplate
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.paths import page_name
from biascorr_pydra.report.scripts import NO_SCRIPTS, RATINGS, Scripts, as_json, scripts_of

from .content import judge_pairs, method_parts, metric_rows, notes, segmentations
from .mosaic import OUTLINES
from .order import PageOrder
from .pictures import ScanPictures

__all__ = ["render", "template_sha256"]

TEMPLATE = Path(__file__).with_name("scan.html")


def render(order: PageOrder, pictures: ScanPictures) -> tuple[str, list[str]]:
    """The page, and what in the records is at odds with itself, in words."""
    results = order.results
    problems = list(disagreements_of(results))
    sentences = boilerplate(results)
    html = _template().render(
        scripts=_scripts() if order.store else NO_SCRIPTS,
        store=order.store,
        rating=order.rating,
        rating_data=as_json(
            {"store": order.store, "scan": order.scan, "name": page_name(order.scan), "file": order.rating.as_row()}
        ),
        cohort=order.cohort,
        scan=order.scan,
        title=page_name(order.scan) if order.cohort else results[0].name,
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        links=order.links,
        parts=method_parts(results),
        judge_pairs=judge_pairs(results),
        pictures=pictures,
        histograms={name: method for name, method in pictures.methods.items() if method.histograms},
        layers=_layers(results, pictures),
        fields=_fields(results, pictures),
        outline_colors=OUTLINES,
        tables=metric_rows(results, order.places),
        segmentations=segmentations([result for result in results if result.record]),
        notes=notes(results),
        errors=[*_failures(results), *pictures.problems, *problems],
        boilerplate=sentences,
    )
    return html, problems


@lru_cache
def template_sha256() -> str:
    """Hash of the template and its script: pages made by other ones are made again."""
    return sha256(TEMPLATE) + sha256(RATINGS)


@lru_cache
def _scripts() -> Scripts:
    return scripts_of(RATINGS)


@lru_cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE.name)


def _layers(results: Sequence[Result], pictures: ScanPictures) -> list[dict[str, Any]]:
    """The pictures that can be laid over one another, the acquired image first, each with its field."""
    layers: list[dict[str, Any]] = []
    if pictures.acquired:
        layers.append({"name": "acquired", "picture": pictures.acquired, "bias": None, "remark": ""})
    for result in results:
        method = pictures.methods[result.method]
        if method.corrected:
            unchanged = result.part("gate").get("applied") == NOT_CORRECTED
            remark = " (unchanged)" if unchanged else ""
            field = (method.rejected, _not_divided(result)) if unchanged and method.rejected else (method.bias, remark)
            layer = {"picture": method.corrected, "bias": field[0], "remark": remark, "field_remark": field[1]}
            layers.append({"name": result.method, **layer})
    return layers


def _fields(results: Sequence[Result], pictures: ScanPictures) -> list[dict[str, Any]]:
    """Every field that was found, and whose it is."""
    fields = []
    for result in results:
        method, applied = pictures.methods[result.method], result.part("gate").get("applied")
        if method.rejected:
            fields.append({"name": result.method, "remark": _not_divided(result), "picture": method.rejected})
        if method.bias and not (method.rejected and applied == NOT_CORRECTED):
            remark = f" (field by {applied}, in its place)" if method.rejected else ""
            fields.append({"name": result.method, "remark": remark, "picture": method.bias})
    return fields


def _not_divided(result: Result) -> str:
    return f" ({result.verdict}, not divided out)"


def _failures(results: Sequence[Result]) -> list[str]:
    return [f"{result.method}: the correction failed: {result.reason}" for result in results if result.failed]
