"""The files that one call writes: looked at before any work, and written all or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images import files

__all__ = ["Outputs", "rejected_file_beside"]


def rejected_file_beside(out_file: str | Path) -> Path:
    """Where the rejected field goes if nobody says where: ``OUT_rejected-biasfield.nii.gz``.

    Examples
    --------
    >>> rejected_file_beside("corrected.nii.gz").name
    'corrected_rejected-biasfield.nii.gz'
    """
    path = Path(out_file)
    return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.nii')}_rejected-biasfield.nii.gz")


class Outputs:
    """Files by kind, those that nobody asked for left out.

    Parameters
    ----------
    images : kind -> file or None
        "out" is always there. Without a name for "rejected" it stands beside "out".
    record_file, report_file : file or None
    """

    def __init__(
        self, images: Mapping[str, str | Path | None], record_file: str | Path | None, report_file: str | Path | None
    ):
        out_file = images["out"]
        assert out_file is not None, "a correction always has an output"
        self._beside = rejected_file_beside(out_file)
        self.images = {**images, "rejected": images.get("rejected") or self._beside}
        self._texts = ((record_file, (".json",)), (report_file, (".html", ".htm")))

    def check(self, inputs: Iterable[str | Path | None], *, overwrite: bool) -> None:
        """Refuse what cannot or must not be written.

        Raises
        ------
        InvalidParameterError, OutputError, OutputExistsError
            Two outputs have one name; see :func:`biascorr_pydra.images.files.check_output` for the others.
        """
        inputs = tuple(inputs)
        listed: list[tuple[str | Path, tuple[str, ...]]] = [
            (file, files.SUFFIXES) for file in self.images.values() if file is not None
        ]
        listed += [(file, suffixes) for file, suffixes in self._texts if file is not None]
        names = [file for file, _ in listed]
        if len({Path(file).resolve() for file in names}) < len(names):
            raise InvalidParameterError("every output needs a name of its own", value=", ".join(map(str, names)))
        for file, suffixes in listed:
            files.check_output(file, inputs=inputs, overwrite=overwrite, suffixes=suffixes)

    def write(self, contents: Mapping[str | Path, bytes]) -> None:
        """Write all files or none; then a rejected field of an earlier call goes that this call has no other for.

        Only one under the default name, which is this package's own: of a name that the user gave, nobody knows whose
        file it is.

        Raises
        ------
        OutputError
        """
        files.write_all(contents)
        if self._beside not in contents and self.images["rejected"] == self._beside:
            self._beside.unlink(missing_ok=True)
