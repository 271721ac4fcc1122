"""The names of the top floor for type checkers, which cannot follow the loading of names when they are first used."""

from biascorr_pydra.correction.apply import apply_file as apply_file
from biascorr_pydra.correction.correct import correct_image as correct_image
from biascorr_pydra.correction.record import Correction as Correction
from biascorr_pydra.errors import BiasCorrError as BiasCorrError
from biascorr_pydra.single import correct_file as correct_file

__version__: str
