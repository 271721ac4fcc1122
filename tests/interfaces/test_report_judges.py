"""What the report's faces judge, and what they say of it."""

from click.testing import CliRunner
from judged_cohort import T1W

from biascorr_pydra import lock
from biascorr_pydra.interfaces.cli import cohort


def report(out):
    return CliRunner().invoke(cohort.report, [str(out), "--no-scan-pages"])


def test_the_report_of_an_old_folder_judges_it_once_and_says_so(delivery, phantom):
    delivery.put("n4", phantom.bias)
    done = report(delivery.out)
    assert done.exit_code == 0, done.output
    assert "judged 0 of 1\njudged 1 of 1\n" in done.stderr and delivery.record().is_file()
    assert "judged" not in report(delivery.out).stderr


def test_what_cannot_be_judged_is_named_and_the_report_is_made(delivery, phantom):
    delivery.put("n4", phantom.bias)
    corrected = delivery.out / "n4" / T1W.replace("_T1w", "_desc-preproc_T1w")
    corrected.write_bytes(bytes(corrected.stat().st_size))
    done = report(delivery.out)
    assert f"NOT JUDGED  {T1W}\n        UnreadableImageError: {corrected}" in done.stderr
    assert (delivery.out / "report.html").is_file()


def test_while_a_run_is_at_work_it_is_left_to_judge(delivery, phantom):
    delivery.put("n4", phantom.bias)
    with lock.exclusive(delivery.out, {}):
        assert "judged" not in report(delivery.out).stderr
    assert not delivery.record().exists()
