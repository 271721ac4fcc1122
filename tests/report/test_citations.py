"""Every method is cited by what it is described in, and our own by nobody else's paper."""

import re

import pytest

from biascorr_pydra.methods import Reference, get_corrector, method_names
from biascorr_pydra.methods.reference import SOFTWARE
from biascorr_pydra.report.cohort.boilerplate import boilerplate, references_of
from biascorr_pydra.report.cohort.findings import find
from biascorr_pydra.report.cohort.methods_text import methods_text
from biascorr_pydra.report.collect import Cohort, Result

SCAN = "sub-01/anat/sub-01_T1w.nii.gz"
#: First author, year and what of the place of publication must be named.
WANTED = {
    "n4": "Tustison et al., 2010, doi:10.1109/TMI.2010.2046908",
    "ants-n4": "Tustison et al., 2010, doi:10.1109/TMI.2010.2046908",
    "ubc": "Perez-Caballero et al., 2024, Medical Imaging with Deep Learning",
    "getnet": "Simkó et al., 2019, arXiv:1909.05484",
    "implicit": "Simkó et al., 2022, Medical Imaging with Deep Learning",
    "deepnormalize": "Delisle et al., 2022, Medical Image Analysis",
    "deepem": "The biascorr_pydra developers, Software, version",
}


def text_for(method):
    record = {"method": method, "method_version": "1", "before": {}, "after": {}}
    (text,) = methods_text(find(Cohort("c", [Result(SCAN, method, record=record)], []), 3.5))
    return text


@pytest.mark.parametrize("method", sorted(WANTED))
def test_each_method_is_cited_in_the_text_to_paste(method):
    assert WANTED[method] in text_for(method)
    assert get_corrector(method).citation().startswith(WANTED[method])


def test_our_own_is_not_cited_as_somebody_else_s():
    text = text_for("deepem")
    assert "Ashburner" not in text
    made = boilerplate([Result(SCAN, "deepem", record={"method": "deepem"})])
    assert made.references == [SOFTWARE]
    assert "corrected for intensity non-uniformity with deepem (The biascorr_pydra developers)" in made.sentences[0]
    assert "author = {{The biascorr_pydra developers}}" in SOFTWARE.bibtex and "year" not in SOFTWARE.bibtex


def test_the_software_is_cited_as_its_citation_file_says(pytestconfig):
    citation = (pytestconfig.rootpath / "CITATION.cff").read_text()
    assert f'title: "{SOFTWARE.title}"' in citation and f'name: "{SOFTWARE.authors}"' in citation
    assert SOFTWARE.where == f"Software, version {re.search(r'^version: (.+)$', citation, re.M)[1]}"


def test_steps_have_references_and_what_is_not_known_has_none():
    assert [reference.year for reference in references_of("template")] == [2011, 2011]
    assert references_of("deepnormalize") == get_corrector("deepnormalize").references
    assert references_of("kmeans") == references_of("method-of-a-package-that-is-gone") == ()


def test_a_reference_in_running_text_and_as_bibtex_by_hand():
    reference = Reference("doe2020", "Doe J", "On fields", "Journal 1", 2020, "10.1/x")
    assert (reference.cited, reference.with_doi) == ("Doe 2020", "Doe, 2020, doi:10.1/x")
    assert reference.text == "Doe J (2020). On fields. Journal 1. doi:10.1/x"
    assert reference.bibtex == (
        "@article{doe2020,\n  author = {Doe J},\n  title = {{On fields}},\n  journal = {Journal 1},\n"
        "  year = {2020},\n  doi = {10.1/x},\n}"
    )


def test_every_method_states_whom_to_cite():
    assert set(WANTED) <= set(method_names())
    for name in method_names():
        assert get_corrector(name).references, name
