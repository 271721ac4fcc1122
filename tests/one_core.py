"""One thread for each process of tests: two of them share two cores. The libraries read this as they are imported."""

import os

from biascorr_pydra.resources import THREAD_VARIABLES

for name in THREAD_VARIABLES:
    os.environ.setdefault(name, "1")
