"""What the pages name exists: modules, functions, files, links, and the sections that a link points into."""

import ast
import re
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from sources import ROOT, sources

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bids_examples/*.md")])
DOTTED = re.compile(r"\bbiascorr_pydra(?:\.[A-Za-z]\w*)+")
FILE = re.compile(r"(?<![\w/.])(?:biascorr_pydra|tests|benchmarks|docs|workflows|bids_examples)/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ENTRY_POINTS = {"biascorr_pydra.methods", "biascorr_pydra.trainings"}  # groups, by which other packages add to this one
OLD_NAMES = re.compile(r"^\| `[^|]*\|", re.MULTILINE)  # the first column of the table of moved modules


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, or a name at the top of one, or an attribute of such a name."""
    parts = dotted.split(".")
    for upto in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:upto])
        if path.is_dir() or path.with_suffix(".py").is_file():
            rest = parts[upto:]
            files = [path.with_suffix(".py"), path / "__init__.py", path / "__init__.pyi"]
            return not rest or any(rest[0] in names_at_the_top(file) for file in files if file.is_file())
    return False


@cache
def names_at_the_top(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


def dotted_names(text: str) -> Iterator[str]:
    """Names in a page that belong to the package; not files such as biascorr_pydra.egg-info."""
    for name in DOTTED.findall(text):
        if name not in ENTRY_POINTS and not name.endswith((".git", ".egg")):
            yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page):
    text = page.read_text()
    history = page.name == "CHANGES.md"  # which also names what went away
    written = {path.removesuffix(".py").replace("/", ".") for path in new(text)}
    names = dotted_names(OLD_NAMES.sub("", text) if history else text)
    assert [name for name in names if not exists(name) and name not in written] == []
    lost = {path for path in FILE.findall(text) if not (ROOT / path).exists()}
    assert history or lost - new(text) == set()


def new(text: str) -> set[str]:
    """What a recipe asks its reader to write, and names with a place to fill in, such as methods/NAME."""
    written = re.findall(r"<!-- write (\S+) -->", text)
    folders = {str(Path(path).parent) for path in written}
    return {*written, *folders, *(path for path in FILE.findall(text) if re.search(r"\b[A-Z]{3,}\b", path))}


def test_modules_went_where_the_changes_say():
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", (ROOT / "CHANGES.md").read_text(), re.MULTILINE)
    assert len(rows) > 50
    assert [after for _, after in rows if not exists(f"biascorr_pydra.{after}")] == []


def test_the_picture_names_modules_that_exist():
    drawn = runpy.run_path(str(ROOT / "docs/make_architecture.py"))
    names: list[str] = []
    for *_, text, _ in [*drawn["IMAGE"].values(), *drawn["COHORT"].values()]:
        folder = ""
        for name in re.findall(r"\.?\w[\w.]*", text.replace("NAME", "n4")):
            folder = folder if name.startswith(".") else name
            names.append(folder + name if name.startswith(".") else name)
    assert len(names) > 14
    assert [name for name in names if not exists(f"biascorr_pydra.{name}")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if not link.startswith(("http", "#")):
            path, _, section = link.partition("#")
            assert (page.parent / path).exists(), link
            assert not section or section in anchors((page.parent / path).read_text()), link


def anchors(text: str) -> set[str]:
    """The sections of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_dotted_names_in_the_code_s_own_words_exist():
    missing = {}
    for source in sources():
        texts = [node.value for node in ast.walk(source.tree) if isinstance(node, ast.Constant)]
        names = {name for text in texts if isinstance(text, str) for name in dotted_names(text)}
        lost = sorted(name for name in names if not exists(name))
        if lost and source.folder != Path("tests/house"):  # which names what does not exist on purpose
            missing[str(source)] = lost
    assert missing == {}


def test_a_name_that_does_not_exist_is_noticed():
    assert exists("biascorr_pydra.images.nifti.load") and exists("biascorr_pydra.correct_file")
    assert not exists("biascorr_pydra.image") and not exists("biascorr_pydra.images.nifti.lode")


def test_type_checkers_see_the_names_that_load_when_first_used():
    import biascorr_pydra

    assert names_at_the_top(ROOT / "biascorr_pydra/__init__.pyi") >= set(biascorr_pydra.__all__) - {"__version__"}
