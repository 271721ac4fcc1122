"""A leading underscore is private to its folder; imports are written in one way; variables say what they hold."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import known
from sources import Source, folder_of_module, imported_from, is_private, source_of, sources

DOCUMENTED = {
    "_asdict",
    "_replace",
    "_fields",
    "_make",
    "_field_defaults",
    "_exit",
}  # public, in spite of the underscore
BY_NAME = {"getattr", "setattr", "delattr", "hasattr", "object"}  # what takes an attribute's name as a text

# Names that say nothing of what they hold.
EMPTY_WORDS = {"found", "there", "told", "said"}


@cache
def defined_in(folder: Path) -> frozenset[str]:
    """Every private name that the files of a folder define: functions, classes, variables and attributes of `self`."""
    names = set()
    for source in sources():
        if source.folder == folder:
            names |= defined_names(source)
    return frozenset(names)


def defined_names(source: Source) -> set[str]:
    names = set()
    for node in ast.walk(source.tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name("self")):
                names.add(name)
    return names


def private_imports(source: Source) -> Iterator[str]:
    """`from MODULE import _name`, and modules whose own name has the underscore, from outside their folder."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            module = imported_from(source, node)
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            for upto, part in enumerate(name.split(".")):
                if is_private(part) and folder_of_module(".".join(name.split(".")[:upto])) != source.folder:
                    yield name


def private_attributes(source: Source) -> Iterator[str]:
    """`thing._name` of anything but `self`, and private names given as text to getattr or monkeypatch."""
    own = defined_in(source.folder) | defined_names(source)
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(attr=name, value=value) if is_private(name):
                owner = ast.unparse(value)
                if owner not in ("self", "cls", "super()") and name not in own | DOCUMENTED:
                    yield f"{owner}.{name}"
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[first, *rest]) if (
                called in BY_NAME
            ):
                for text in (text for text in (first, *rest[:1]) if isinstance(text, ast.Constant)):
                    name = str(text.value).rpartition(".")[2]
                    if isinstance(text.value, str) and is_private(name) and name not in own | DOCUMENTED:
                        yield name


def foreign(source: Source) -> set[str]:
    return set(known.OTHER_PACKAGES.get(str(source), ()))


def private_names(source: Source) -> list[str]:
    names = [*private_imports(source), *private_attributes(source)]
    return sorted({name for name in names if name.rpartition(".")[2] not in foreign(source)})


def test_private_names_stay_in_their_folder():
    assert {str(source): names for source in sources() if (names := private_names(source))} == {}


def test_a_private_name_taken_from_another_folder_is_noticed():
    text = """
from biascorr_pydra.images.nifti import _closed
from biascorr_pydra.images import nifti, _hidden
import biascorr_pydra.images._hidden
nifti._other
self._mine
monkeypatch.setattr(nifti, "_patched", 1)
monkeypatch.setattr("biascorr_pydra.images.nifti._by_path", 1)
row._replace(a=1)
def _own(): thing._own
"""
    assert private_names(source_of(Path("tests/images/test_x.py"), text)) == [
        "_by_path",
        "_patched",
        "biascorr_pydra.images._hidden",
        "biascorr_pydra.images.nifti._closed",
        "nifti._other",
    ]
    inside = source_of(Path("biascorr_pydra/images/x.py"), "from biascorr_pydra.images.nifti import _closed\n")
    assert private_names(inside) == []


def test_other_packages_private_names_are_declared_where_they_are_used():
    for path, names in known.OTHER_PACKAGES.items():
        text = next(source.text for source in sources() if str(source) == path)
        assert [name for name in names if name not in text] == [], f"{path} no longer needs all of its declared names"


def test_pydra_s_private_names_stand_in_one_module():
    used = {path for path, names in known.OTHER_PACKAGES.items() if known.PYDRA & set(names)}
    assert len(used) <= known.PYDRA_MODULES, used


def badly_imported(source: Source) -> list[str]:
    """Siblings are imported by one dot and a name; all else, and what lies on the top floor, by its whole name."""
    bad = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            module = imported_from(source, node)
            path = Path(*module.split("."))
            itself = path == source.folder
            sibling = path.parent == folder_of_module(module) == source.folder
            if len(source.folder.parts) == 1:
                continue
            if (
                node.level > 1
                or (node.level == 1 and not (sibling or itself))
                or (not node.level and (sibling or (itself and source.path.name != "__init__.py")))
            ):
                bad.append(f"{node.lineno}: {ast.unparse(node)}")
    return bad


def test_imports_are_relative_within_a_folder_and_absolute_elsewhere():
    package = [source for source in sources() if source.path.parts[0] == "biascorr_pydra"]
    assert {str(source): lines for source in package if (lines := badly_imported(source))} == {}


def test_an_import_written_in_the_other_way_is_noticed():
    path = Path("biascorr_pydra/images/x.py")
    for line in (
        "from ..errors import BiasCorrError",
        "from biascorr_pydra.images.nifti import load",
        "from biascorr_pydra.images import nifti",
    ):
        assert badly_imported(source_of(path, line + "\n")), line
    for line in ("from .nifti import load", "from . import nifti", "from biascorr_pydra.errors import BiasCorrError"):
        assert not badly_imported(source_of(path, line + "\n")), line


def divisions_by_a_field(source: Source) -> list[str]:
    """Divisions of anything but a field itself by something that is called a bias."""
    lines = []
    for node in ast.walk(source.tree):
        match node:
            case ast.BinOp(left=divided, op=ast.Div(), right=divisor):
                pass
            case ast.AugAssign(target=divided, op=ast.Div(), value=divisor):
                pass
            case _:
                continue
        if _first_name(divisor) == "bias" != _first_name(divided):
            lines.append(f"{node.lineno}: {ast.unparse(node)}")
    return lines


def _first_name(expression: ast.expr) -> str:
    """`bias` of `bias.reshape(3)[0]`."""
    while isinstance(expression, ast.Call | ast.Attribute | ast.Subscript):
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return expression.id if isinstance(expression, ast.Name) else ""


def test_an_image_is_divided_by_its_field_in_one_place():
    package = [source for source in sources() if source.path.parts[0] == "biascorr_pydra"]
    places = {str(source): lines for source in package if (lines := divisions_by_a_field(source))}
    assert list(places) == ["biascorr_pydra/correction/divide.py"]


def empty_words(source: Source) -> list[str]:
    """Where a variable, parameter, loop variable or field has a word of EMPTY_WORDS for a name."""
    lines = []
    for node in ast.walk(source.tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                if name.strip("_") in EMPTY_WORDS:
                    lines.append(f"{node.lineno}: {name}")
    return lines


def test_variables_say_what_they_hold():
    assert {str(source): lines for source in sources() if (lines := empty_words(source))} == {}


def test_an_empty_word_is_noticed():
    text = "found = 1\nfor there in found: pass\ndef f(told, *, said=1): self.found = 2\nfounded = found\n"
    words = ["1: found", "2: there", "3: found", "3: said", "3: told"]
    assert sorted(empty_words(source_of(Path("a/b.py"), text))) == words
