"""A finished decoder as a Core ML package: one decode of a whole clip, or a stream of chunks; proven before it is kept.

One decode      function "main":  latents -> frames
Streaming       function "first": latents -> frames, new_state_0, new_state_1, ...
                function "next":  latents, state_0, state_1, ... -> frames, new_state_0, new_state_1, ...

Both functions of a stream share their weights. They differ where the first latent frame of a clip becomes one frame.
All shapes are fixed. Latents are the teacher's, raw (mean and std are in the weights); frames are RGB in [-1, 1].
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nas.core_ml.convert import to_core_ml
from nas.core_ml.coremltools_package import import_coremltools, quiet_coremltools
from nas.core_ml.program import read_program
from nas.core_ml.proof import Proof, prove_all
from nas.core_ml.weights import compress
from nas.export.functions import Function, make_functions
from nas.export.memory import missing_memory
from nas.export.settings import LEAST_PSNR, ExportSettings
from nas.machine.files import disk_errors
from nas.machine.temporary import put_in_place, temporary_folder
from nas.terminal.errors import UserError
from search_spaces import Decoder

if TYPE_CHECKING:
    from coremltools.models import MLModel


class ExportError(UserError):
    """A decoder cannot be converted, or its program's frames are too far from its own."""


@dataclass(frozen=True)
class ExportReport:
    """What was written and how precise it is."""

    settings: ExportSettings
    """What the package was made for."""
    proofs: dict[str, Proof]
    """Proof of each function of the package, by its name."""
    scaled_norms: int
    """Number of norms that scale their input down, as its square would overflow."""
    uncompressed: dict[str, Proof] | None
    """Proof of each function before its weights were compressed; None if they were not."""
    size_bytes: int
    """Size of the package in bytes."""
    convert_seconds: float
    """Seconds that the conversion took."""
    prove_seconds: float
    """Seconds that the proofs took."""

    @property
    def psnr(self) -> float:
        """Lowest PSNR of a function in dB against PyTorch, computed as a device rounds."""
        return min(proof.psnr_rounded for proof in self.proofs.values())

    @property
    def compression_cost(self) -> float | None:
        """dB that compressed weights cost; None if they are not."""
        if self.uncompressed is None:
            return None
        return min(proof.psnr_rounded for proof in self.uncompressed.values()) - self.psnr

    def describe(self) -> str:
        """The settings, the size and the precision in one line."""
        used = self.settings
        cost = "" if self.compression_cost is None else f", {self.compression_cost:.1f} dB less than with 16 bit"
        scaled = "" if not self.scaled_norms else f", norms scaled: {self.scaled_norms}"
        inputs = max(len(proof.psnr_draws) for proof in self.proofs.values())
        lowered = f" (the limit of {LEAST_PSNR:g} dB was lowered to {used.least_psnr:g})"
        lowered = lowered if used.least_psnr < LEAST_PSNR else ""
        return (
            f"{used.describe()}{scaled}, {self.size_bytes / 1e6:.1f} MB; {self.psnr:.1f} dB against PyTorch "
            f"on the worst of {inputs} latents, rounded as a device does{cost}{lowered}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON primitives."""
        settings = {**asdict(self.settings), "rewrites": list(self.settings.rewrites)}
        proofs: dict[str, Any] = {"proofs": {name: proof.to_dict() for name, proof in self.proofs.items()}}
        if self.uncompressed is not None:
            proofs["uncompressed"] = {name: proof.to_dict() for name, proof in self.uncompressed.items()}
        found = {"settings": settings, "psnr": self.psnr, "compression_cost": self.compression_cost}
        return {**asdict(self), **proofs, **found}


def export_decoder(
    decoder: Decoder,
    settings: ExportSettings,
    path: Path,
    *,
    metadata: Mapping[str, str],
    latents: Tensor | None = None,
) -> ExportReport:
    """Convert a decoder, prove the package on disk against PyTorch, and move it to `path`. Runs on any system.

    Args:
        decoder: on the CPU.
        settings: size, form, precision, weights and rewrites.
        path: of the `.mlpackage`; a package of a decoder that is there is replaced in one step.
        metadata: for users of the package; what the proof found is added.
        latents: real ones to prove with, `(b, c, t, h, w)`, cut or repeated to the size of one decode; noise with the
            latents' own mean and std is always proven, too, and the worst counts.

    Raises:
        UserError: the size is not on the latents' grid, the decoder does not stream, a rewrite changes nothing, what is
            at `path` is no package of a decoder, or the disk does not take it.
        ExportError: it cannot be converted, it does not fit into memory, or the program's frames are too far from its
            own. Nothing is written.
    """
    doing = f"cannot write the package {path.name}"
    refuse_foreign(path)
    _check_memory(decoder, settings)
    functions, scaled_norms = make_functions(decoder.eval(), settings, latents)
    with disk_errors(doing):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as work, disk_errors(doing, work), _all_temporary_files_in(work):
            started = time.monotonic()
            models = {name: _convert(function, settings, work) for name, function in functions.items()}
            package = _save({name: compress(model, settings.weights) for name, model in models.items()}, work)
            converted = time.monotonic()
            proofs = {name: _prove(read_program(package, name), function) for name, function in functions.items()}
            before = None
            if settings.weights != "16bit":
                before = {name: _prove(read_program(models[name]), function) for name, function in functions.items()}
            seconds = round(converted - started, 1), round(time.monotonic() - converted, 1)
            report = ExportReport(settings, proofs, scaled_norms, before, 0, *seconds)
            _check(report)
            _describe(package, {**metadata, **_proof_metadata(report)})
            size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
            put_in_place(package, path)
    return replace(report, size_bytes=size)


def refuse_foreign(path: Path) -> None:
    """Refuse to replace what is no package of a decoder.

    Raises:
        UserError: something else is at `path`.
    """
    with disk_errors(f"cannot write the package {path.name}"):
        if not os.path.lexists(path):
            return
    foreign = f"{path} is there and is not a package of a decoder: move it away or choose another --out"
    try:
        metadata = import_coremltools().models.MLModel(str(path), skip_model_load=True).user_defined_metadata
    except Exception as error:  # coremltools raises many kinds: whatever it cannot read is not ours
        raise UserError(foreign) from error
    if "architecture_hash" not in metadata:
        raise UserError(foreign)


def _check_memory(decoder: Decoder, settings: ExportSettings) -> None:
    try:
        missing = missing_memory(decoder, settings)
    except ValueError:
        return  # a size or a form that the decoder does not take: `make_functions` says so
    if missing:
        raise ExportError(f"{missing}: choose a smaller --resolution, fewer --frames, or --streaming")


@contextmanager
def _all_temporary_files_in(folder: Path) -> Iterator[None]:
    """Where coremltools, too, keeps what it does not mean to keep: the next start removes what a kill leaves there."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _convert(function: Function, settings: ExportSettings, work: Path) -> "MLModel":
    try:
        with disk_errors("cannot write the converted program", work):
            return to_core_ml(
                function.module,
                tuple(function.inputs.values()),
                input_names=tuple(function.inputs),
                output_names=tuple(function.outputs),
                precision=settings.precision,
            )
    except UserError:
        raise
    except Exception as error:  # torch.export and coremltools raise many kinds; none of them is lost
        text = " ".join(str(error).split())[:300]
        raise ExportError(f"the decoder cannot be converted to Core ML: {type(error).__name__}: {text}") from error


def _prove(program: Any, function: Function) -> Proof:
    return prove_all(program, [(draw.inputs, draw.outputs) for draw in function.draws])


def _save(models: Mapping[str, "MLModel"], folder: Path) -> Path:
    """One package in `folder`; several functions in it share equal weights."""
    package = folder / "decoder.mlpackage"
    if set(models) == {"main"}:
        models["main"].save(str(package))
        return package
    ct = import_coremltools()
    together = ct.utils.MultiFunctionDescriptor()
    for name, model in models.items():
        single = folder / f"{name}.mlpackage"
        model.save(str(single))
        together.add_function(str(single), src_function_name="main", target_function_name=name)
    together.default_function_name = next(iter(models))
    with quiet_coremltools():
        ct.utils.save_multifunction(together, str(package))
    return package


def _check(report: ExportReport) -> None:
    if report.psnr >= report.settings.least_psnr:
        return
    name, proof = min(report.proofs.items(), key=lambda item: item[1].psnr_rounded)
    where = f"; the error jumps at {proof.jump.describe()}" if proof.jump else ""
    raise ExportError(
        f"the converted program ('{name}') gives frames of {proof.psnr_rounded:.1f} dB against PyTorch's "
        f"({proof.psnr_exact:.1f} dB computed in float32), at least {report.settings.least_psnr:g} dB are expected"
        f"{where}: choose --precision mixed or float32, other --weights, or a lower --least-psnr"
    )


def model_metadata(decoder: Decoder, teacher: str, evaluation: Mapping[str, Any]) -> dict[str, str]:
    """What users of a package want to know about its decoder.

    Args:
        decoder: the decoder.
        teacher: name of its teacher.
        evaluation: its metrics, JSON primitives.
    """
    config = decoder.config
    return {
        "teacher": teacher,
        "architecture": json.dumps(config.to_dict()),
        "architecture_hash": config.digest(),
        "frame_rule": config.latents.frames_formula(),
        "evaluation": json.dumps(evaluation),
    }


def _proof_metadata(report: ExportReport) -> dict[str, str]:
    return {
        "psnr_against_pytorch_db": f"{report.psnr:.2f}",
        "psnr_limit_db": f"{report.settings.least_psnr:g}",
        "precision": report.settings.precision,
        "weights": report.settings.weights,
        "rewrites": ", ".join(report.settings.rewrites) or "none",
        "scaled_norms": str(report.scaled_norms),
        "height": str(report.settings.height),
        "width": str(report.settings.width),
        "frames": str(report.settings.num_frames),
    }


def _describe(package: Path, metadata: Mapping[str, str]) -> None:
    """Write metadata into a package that is on disk: only the last save of several functions is the whole."""
    ct = import_coremltools()
    model = ct.models.MLModel(str(package), skip_model_load=True)
    model.short_description = "Video decoder: latents (b, c, t, h, w) of its teacher, raw -> RGB frames in [-1, 1]"
    model.user_defined_metadata.update(metadata)
    described = package.with_name("described.mlpackage")
    model.save(str(described))
    shutil.rmtree(package)
    described.rename(package)
