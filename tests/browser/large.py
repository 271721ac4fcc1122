"""A cohort of 60 scans at 17 sites, as benchmarks/report_cohort.py writes it; see the fixture `large_cohort`."""

import csv
import importlib.util
from pathlib import Path

from biascorr_pydra.report import write_report
from biascorr_pydra.report.paths import scan_page

N_SCANS = 60
METHODS = ["n4", "ubc"]
EVIL = "</script><img src=x onerror=alert(1)><b>bold</b>"
MAKER = Path(__file__).parents[2] / "benchmarks" / "report_cohort.py"


def write_large_cohort(out):
    """One site has a hostile name, one scan failed with a hostile reason."""
    spec = importlib.util.spec_from_file_location("report_cohort", MAKER)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    maker.make(out, N_SCANS, METHODS)
    people = out.parent / "raw/participants.tsv"
    people.write_text(people.read_text().replace("NYU", EVIL))
    with open(out / "status.tsv") as stream:
        head, *rows = csv.reader(stream, delimiter="\t")
    rows[3][2:] = ["failed", EVIL]
    with open(out / "status.tsv", "w", newline="") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows([head, *rows])
    for scan in {row[0] for row in rows}:
        page = scan_page(out, scan)
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"<!DOCTYPE html><title>{page.stem}</title>page of {page.stem}")
    write_report(out)
    return out
