"""What a method's field depends on beside its inputs and parameters, as text for the keys of cached results."""

from __future__ import annotations

from biascorr_pydra import weights
from biascorr_pydra.errors import BrokenMethodError

from .corrector import Corrector
from .registry import get_corrector
from .spec import NO_FALLBACK, MethodSpec

__all__ = ["identity", "implementation", "weights_sha256"]


def implementation(method: str, fallback: str = NO_FALLBACK) -> str:
    """Version and weights of a method, of its fallback and of the gate as one string, for the keys of cached results.

    Parameters
    ----------
    method : METHOD or METHOD:PRESET
    fallback : METHOD, METHOD:PRESET or "none"

    Raises
    ------
    UnknownMethodError, InvalidParameterError, WeightsError
    """
    from biascorr_pydra.quality import GATE_VERSION

    correctors: list[Corrector | type[Corrector]] = [get_corrector(MethodSpec.parse(method).method)]
    if fallback != NO_FALLBACK:
        spec = MethodSpec.parse(fallback)
        correctors.append(get_corrector(spec.method).from_options(spec.preset))
    return ", ".join([*map(identity, correctors), f"gate {GATE_VERSION}"])


def identity(corrector: Corrector | type[Corrector]) -> str:
    """Name, version and weights of one corrector, and of those that it runs inside.

    Raises
    ------
    BrokenMethodError
        Methods run each other in a circle.
    WeightsError
        One has weights, and they are missing.
    """
    return _identity(corrector, ())


def _identity(corrector: Corrector | type[Corrector], within: tuple[str, ...]) -> str:
    if corrector.name in within:
        circle = " > ".join([*within, corrector.name])
        raise BrokenMethodError("methods must not run each other in a circle", value=circle)
    within = (*within, corrector.name)
    text = f"{corrector.name} {corrector.version} {weights_sha256(corrector) or 'no weights'}"
    inside = [_identity(get_corrector(name), within) for name in corrector.runs]
    return f"{text} (runs {', '.join(inside)})" if inside else text


def weights_sha256(corrector: Corrector | type[Corrector]) -> str | None:
    """Hex SHA-256 of the weights that a corrector uses, its own or the user's; None where it has none.

    Raises
    ------
    WeightsError
    """
    source = getattr(corrector, "weights_file", None) or corrector.weights
    return None if source is None else weights.sha256_of(source)
