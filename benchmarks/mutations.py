"""The changes that mutants.py makes: of each central rule one that breaks it, and the tests that must see it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTATIONS", "Mutation"]

WRITING = "tests/images/test_writing.py"
NIFTI = "tests/images/test_nifti.py"
DIVIDE = "tests/correction/test_divide.py"
CORRECT = "tests/correction/test_correct.py"
PLAN = "tests/cohort/test_plan.py"
PUBLISH = "tests/cohort/test_publish.py"
GATE = "tests/quality"
LOCK = "tests/test_lock.py"


class Mutation(NamedTuple):
    """One change: a rule in words, a file of the package, a text that stands in it once, and what takes its place."""

    rule: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    # Images
    Mutation("share of a mask inside the image", "images/nifti.py", "MASK_KEPT = 0.99", "MASK_KEPT = 0.5", NIFTI),
    Mutation("grid tolerance", "images/nifti.py", "GRID_TOLERANCE_VOXELS = 1e-2", "GRID_TOLERANCE_VOXELS = 1.0", NIFTI),
    Mutation(
        "non-finite voxels are not valid",
        "images/nifti.py",
        "valid = np.isfinite(data) if",
        "valid = np.ones(shape, bool) if",
        f"{NIFTI} {CORRECT}",
    ),
    Mutation(
        "header is kept",
        "images/nifti.py",
        "header = like.header.copy()",
        "header = type(like)(np.zeros((1, 1, 1), np.float32), like.affine).header",
        NIFTI,
    ),
    Mutation(
        "gzip has no time",
        "images/nifti.py",
        "igzip.compress(content, 3, mtime=0)",
        "igzip.compress(content, 3, mtime=__import__('time').time_ns() % 2**31)",
        NIFTI,
    ),
    Mutation(
        "mean 1 over the mask",
        "images/field.py",
        "np.mean(np.exp(log_bias[mask], dtype=np.float64))",
        "np.mean(np.exp(log_bias, dtype=np.float64))",
        f"tests/images/test_field.py {CORRECT}",
    ),
    Mutation(
        "mean of the field, not of its log",
        "images/field.py",
        "float(np.log(np.mean(np.exp(log_bias[mask], dtype=np.float64))))",
        "float(np.mean(log_bias[mask], dtype=np.float64))",
        f"tests/images/test_field.py {CORRECT}",
    ),
    # Files
    Mutation("fsync before the rename", "images/files.py", "os.fsync(stream.fileno())", "pass", WRITING),
    Mutation(
        "renames are undone",
        "images/files.py",
        "        _put_back(renamed, old)\n        raise",
        "        raise",
        WRITING,
    ),
    Mutation("old files are kept aside", "images/files.py", "if len(temporaries) > 1:", "if False:", WRITING),
    Mutation(
        "nothing is left behind",
        "images/files.py",
        "    finally:\n        _remove(temporaries.values())",
        "    finally:\n        pass",
        WRITING,
    ),
    Mutation(
        "a hash is of the bytes now there",
        "images/files.py",
        "status.st_mtime_ns, status.st_ctime_ns]",
        "status.st_mtime_ns, 0]",
        WRITING,
    ),
    Mutation("fresh files are not kept", "images/files.py", "> self.SETTLED_NS:", "> -1:", WRITING),
    # Correction
    Mutation("division", "correction/divide.py", "corrected = data / bias", "corrected = data * bias", DIVIDE),
    Mutation(
        "non-finite voxels become 0", "correction/divide.py", "    if not keep_nonfinite:\n", "    if False:\n", DIVIDE
    ),
    Mutation(
        "the scale mask holds valid voxels only", "correction/case.py", "mask_array) & valid", "mask_array)", CORRECT
    ),
    Mutation(
        "a rejected field is not divided out",
        "correction/decide.py",
        "if candidate and candidate.verdict.applies)",
        "if candidate)",
        GATE,
    ),
    Mutation(
        "the fallback waits for a rejection",
        "correction/decide.py",
        "own.verdict.verdict == REJECTED and case.fallback",
        "case.fallback",
        GATE,
    ),
    Mutation(
        "a fallback like the method is none",
        "correction/case.py",
        "    if fallback == corrector:\n        fallback = None",
        "    if False:\n        fallback = None",
        f"{GATE} {CORRECT}",
    ),
    # Gate
    Mutation(
        "a limit kept is a limit passed", "quality/gate.py", "if strength < NOTHING_SD:", "if strength < 0:", GATE
    ),
    Mutation("absurd fields are rejected first", "quality/gate.py", "if name in ABSURD]:", "if False]:", GATE),
    Mutation("a weak field that sharpens nothing", "quality/gate.py", "and sharpening > BLURRED:", "and False:", GATE),
    Mutation(
        "the support of the image",
        "quality/gate.py",
        '"support": Limit("least", 0.55',
        '"support": Limit("least", -9.0',
        GATE,
    ),
    Mutation(
        "fields that no method invents",
        "quality/gate.py",
        "invents is not None and strength >= invents",
        "invents is not None",
        GATE,
    ),
    # Cohorts
    Mutation(
        "the key is of the scan's bytes",
        "cohort/correction.py",
        '"source": digest(job.source, hashes),',
        '"source": job.relative,',
        "tests/cohort",
    ),
    Mutation(
        "the key is of the given files",
        "cohort/correction.py",
        '"given": given if GIVEN in (settings.skull_strip, settings.segmentation) else {},',
        '"given": {},',
        "tests/cohort",
    ),
    Mutation(
        "the key has the metadata", "cohort/correction.py", '        "metadata": job.metadata,\n', "", "tests/cohort"
    ),
    Mutation(
        "the key has the seed, gate and fallback",
        "cohort/correction.py",
        "        **_options_in_key(settings.options),\n",
        "",
        "tests/cohort",
    ),
    Mutation(
        "the key has the methods inside",
        "methods/identity.py",
        "for name in corrector.runs]",
        "for name in ()]",
        "tests/methods/test_identity.py tests/cohort",
    ),
    Mutation("finished work is this work", "cohort/plan.py", 'work["key"] == key', "True", "tests/cohort tests/bids"),
    Mutation(
        "finished files have their sizes",
        "cohort/plan.py",
        ".st_size == size for",
        ".st_size >= 0 for",
        "tests/cohort tests/bids",
    ),
    Mutation("twins are refused", "cohort/plan.py", "if twin != job.relative:", "if False:", "tests/cohort tests/bids"),
    Mutation(
        "a record marks complete work only",
        "cohort/publish.py",
        "    record.unlink(missing_ok=True)  #",
        "    pass  #",
        PUBLISH,
    ),
    Mutation(
        "foreign files stay",
        "cohort/publish.py",
        "if path.exists() and not _is_ours(path):",
        "if False:",
        f"{PUBLISH} tests/bids",
    ),
    Mutation("stale files go", "cohort/publish.py", "    _remove_stale(paths, files)\n", "", f"{PUBLISH} tests/bids"),
    Mutation("a folder is one run's", "lock.py", "lock.acquire(timeout=1)", "pass", LOCK),
    Mutation(
        "a run that ended leaves no word", "lock.py", '        (place / "run.json").unlink(missing_ok=True)\n', "", LOCK
    ),
    # Anatomy
    Mutation("one seed for Atropos", "anatomy/classes.py", '"r": 0,', '"r": 1,', "tests/anatomy/test_tissue.py"),
    Mutation(
        "segmentation on the device asked for",
        "anatomy/tissue.py",
        'speed="fast", device=device)',
        'speed="fast", device="cpu")',
        "tests/anatomy/test_tissue.py",
    ),
)
