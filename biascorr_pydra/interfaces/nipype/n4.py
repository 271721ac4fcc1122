"""A stand-in for Nipype's interface to ANTs' N4: the same inputs and outputs, run in process by a method of ours.

Every trait of ``nipype.interfaces.ants.N4BiasFieldCorrection`` is there, because the input specification is inherited.
What the method cannot honour raises :class:`~biascorr_pydra.errors.InvalidParameterError`; nothing is ignored. What
differs from ANTs' program:

- the output is float32 with the input's header whether or not ``copy_header`` is set (Nipype's own gives the output the
  input's data type where it is set, and rounds to integers);
- the field has mean 1 over the mask, or the detected head; ANTs leaves its scale open;
- a corrected image is the input divided by the field everywhere; ANTs leaves voxels outside ``mask_image`` alone;
- the field is judged before it is divided out (``gate``): an image whose field is negligible or rejected is passed on
  as it is, with a field of 1; ANTs corrects whatever comes;
- ``rescale_intensities`` means what it says: without it nothing is rescaled, where some versions of ANTs do so unasked
  if there is a mask.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from biascorr_pydra.correction.options import help_of
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images import files, nifti
from biascorr_pydra.methods import REFERENCE_METHOD, get_corrector
from biascorr_pydra.methods.spec import MethodSpec

from .base import FileInterface, ThreadedInputSpec, given, method_version, option_trait

from nipype.interfaces.ants import N4BiasFieldCorrection  # isort: skip (after the base, which explains its absence)
from nipype.interfaces.base import File, isdefined, traits  # isort: skip
from nipype.utils.filemanip import fname_presuffix  # isort: skip

__all__ = ["METHOD_TRAITS", "BiascorrN4", "BiascorrShiftedN4", "set_traits", "unhonoured"]

#: N4's traits that are parameters of a method -> the method's names of them; honoured by a method that has them all.
PARAMETERS = {
    "n_iterations": ("iterations",),
    "convergence_threshold": ("tolerance",),
    "shrink_factor": ("shrink_factor",),
    "bspline_fitting_distance": ("spline_distance_mm",),
    "bspline_order": ("spline_distance_mm",),
    "histogram_sharpening": ("fwhm", "wiener_noise", "bins"),
    "rescale_intensities": ("rescale",),
}
#: Traits of N4 that a method may have no use for; a trait that is in none of these lists always raises.
METHOD_TRAITS = {*PARAMETERS, "weight_image"}
#: Traits of N4 that every method honours. `environ` sets ANTs' threads, which `num_threads` does here.
ALWAYS = {
    *("dimension", "input_image", "mask_image", "output_image", "save_bias", "bias_image", "copy_header"),
    *("num_threads", "environ"),
}
THREAD_VARIABLES = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "NSLOTS"}
OWN = {"method", "options", "seed", "set_aside", "gate", "fallback", "use_gpu", "use_cuda"}


class BiascorrN4InputSpec(ThreadedInputSpec, N4BiasFieldCorrection.input_spec):
    method = traits.Str(REFERENCE_METHOD, usedefault=True, desc=help_of("method"))
    options = traits.Dict(
        traits.Str, traits.Any, desc="parameters of the method that N4's traits do not speak of, such as default_mask"
    )
    seed = option_trait("seed")
    set_aside = traits.List(
        traits.Str,
        desc="traits of N4 that the method has no use for and that are to have no effect; "
        "a trait that is not named here and cannot be honoured raises",
    )
    gate = option_trait("gate")
    fallback = option_trait("fallback")

    def implementation(self) -> str:
        return method_version(self.method, self.fallback)


class BiascorrN4OutputSpec(N4BiasFieldCorrection.output_spec):
    record_file = File(exists=True, desc="what was done and found, JSON")


class BiascorrN4(FileInterface):
    """Bias-field correction with N4BiasFieldCorrection's inputs and outputs.

    Examples
    --------
    >>> from biascorr_pydra.interfaces.nipype.n4 import BiascorrN4
    >>> n4 = BiascorrN4(input_image="structural.nii", n_iterations=[50, 50, 30, 20], shrink_factor=3)
    """

    input_spec = BiascorrN4InputSpec
    output_spec = BiascorrN4OutputSpec

    def _check_version_requirements(self, trait_object, permissive=False):
        return []  # `min_ver` of the inherited traits speaks of ANTs

    def check(self) -> None:
        """Raise InvalidParameterError for a value or trait that this method cannot honour and that is not set aside."""
        inputs = self.inputs
        for trait in set_traits(inputs):
            if trait in unhonoured(inputs.method) and trait not in given(inputs.set_aside, []):
                raise InvalidParameterError(
                    f"method {inputs.method!r} cannot honour {trait} of N4BiasFieldCorrection",
                    value=repr(getattr(inputs, trait)),
                    next_step="Leave it out, choose n4, or name it in set_aside.",
                )
        if inputs.dimension != 3:
            raise InvalidParameterError("images have three dimensions here", value=f"dimension {inputs.dimension}")
        if given(inputs.bspline_order, 3) != 3:
            raise InvalidParameterError("splines are cubic here", value=f"bspline_order {inputs.bspline_order}")
        foreign = set(given(inputs.environ, {})) - THREAD_VARIABLES
        if foreign:
            raise InvalidParameterError("no program is run that an environment could reach", value=sorted(foreign))
        self._spec().corrector(**self._options())

    def _spec(self) -> MethodSpec:
        """The method, with the preset that is ANTs' program where it has one and no other was named."""
        spec = MethodSpec.parse(self.inputs.method)
        if spec.preset is None and "ants" in get_corrector(spec.method).presets:
            return MethodSpec(spec.method, "ants")
        return spec

    def _options(self) -> dict:
        """The method's parameters that the traits ask for; whatever is not set is as in ANTs' program."""
        inputs, known = self.inputs, _parameters(self.inputs.method)
        options: dict[str, Any] = {}
        for trait, names in PARAMETERS.items():
            if trait in given(inputs.set_aside, []) or trait == "bspline_order" or not known.issuperset(names):
                continue
            value = given(getattr(inputs, trait))
            if value is not None:
                value = tuple(value) if isinstance(value, list) else value
                options |= dict(zip(names, value if len(names) > 1 else (value,), strict=True))
        twice = sorted(set(options) & set(given(inputs.options, {})) - {"rescale"})
        if twice:
            raise InvalidParameterError("a parameter is given once, as a trait of N4 or in options", value=twice)
        return options | given(inputs.options, {})

    def compute(self, folder: Path) -> dict[str, Path | None]:
        from biascorr_pydra.single import correct_file

        self.check()
        inputs, spec = self.inputs, self._spec()
        weight_file = None if "weight_image" in given(inputs.set_aside, []) else given(inputs.weight_image)
        output_image = self._output(folder)
        files: dict[str, Path | None] = {"output_image": output_image, "record_file": folder / "record.json"}
        if inputs.save_bias or isdefined(inputs.bias_image):
            files["bias_image"] = self._bias(folder)
        correct_file(
            self._source(folder),
            output_image,
            method=spec.method,
            preset=spec.preset,
            mask_file=given(inputs.mask_image),
            weight_file=weight_file,
            bias_file=files.get("bias_image"),
            record_file=files["record_file"],
            device=self._device(),
            seed=inputs.seed,
            options=self._options(),
            gate=inputs.gate,
            fallback=inputs.fallback,
            overwrite=True,  # ANTs does
        )
        return files

    def _source(self, folder: Path) -> Path:
        return Path(self.inputs.input_image)

    def _output(self, folder: Path) -> Path:
        # As Nipype's name_source and name_template would have it.
        name = given(self.inputs.output_image, "%s_corrected")
        if "%s" in name:
            source = Path(self.inputs.input_image).name
            stem = Path(fname_presuffix(source, newpath="", use_ext=False)).name
            name = (name % stem) + ("" if name.endswith(files.SUFFIXES) else source[len(stem) :])
        return folder / name

    def _bias(self, folder: Path) -> Path:
        if isdefined(self.inputs.bias_image):
            return folder / self.inputs.bias_image
        return Path(fname_presuffix(Path(self.inputs.input_image).name, suffix="_bias", newpath=str(folder)))


class BiascorrShiftedN4OutputSpec(BiascorrN4OutputSpec):
    negative_values = traits.Bool(
        False, usedefault=True, desc="whether a constant was added so that no voxel was negative"
    )


class BiascorrShiftedN4(BiascorrN4):
    """The same for niworkflows' FixN4BiasFieldCorrection, which first lifts an image with negative values to zero."""

    output_spec = BiascorrShiftedN4OutputSpec

    def _source(self, folder: Path) -> Path:
        source = Path(self.inputs.input_image)
        img = nifti.load(source)
        nifti.check_real(img)
        data = img.get_fdata(dtype="float32")
        least = data.min() if data.size else 0.0
        self._results["negative_values"] = bool(least < 0)
        if not least < 0:
            return source
        lifted = folder / f"{source.name.split('.nii')[0]}_scaled.nii.gz"
        nifti.save(nifti.save_like(data - least, img), lifted)
        return lifted


def set_traits(inputs: Any) -> set[str]:
    """Names of N4's traits that were set to something, apart from this package's own."""
    names = set(N4BiasFieldCorrection.input_spec().copyable_trait_names()) - OWN
    changed = set()
    for name in names:
        value, trait = getattr(inputs, name), inputs.trait(name)
        if isdefined(value) and not (trait.usedefault and value == trait.default) and value not in ("", {}):
            changed.add(name)
    return changed


def unhonoured(method: str) -> set[str]:
    """Names of N4's traits that a correction method cannot honour, whatever their value."""
    corrector, known = get_corrector(MethodSpec.parse(method).method), _parameters(method)
    honoured = {trait for trait, names in PARAMETERS.items() if known.issuperset(names)} | ALWAYS
    if corrector.uses_weight:
        honoured.add("weight_image")
    return set(N4BiasFieldCorrection.input_spec().copyable_trait_names()) - honoured


def _parameters(method: str) -> set[str]:
    return {field.name for field in fields(get_corrector(MethodSpec.parse(method).method))}
