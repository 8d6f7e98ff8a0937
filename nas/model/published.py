"""The checkpoints that were released for published decoders, as weights of the presets.

Their files hold the decoder beside what it does not need (encoder, alignment heads, statistics of latents).
"""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nas.machine.hub import fetch_files
from nas.model.pipeline_config import Scaling, known_scaling
from nas.model.published_layouts import Layout, flash_vaed, taehv, turbo_vaed
from nas.terminal.errors import UserError
from search_spaces import PRESETS, Decoder, DecoderConfig


@dataclass(frozen=True)
class Release:
    """One released checkpoint."""

    file: str
    """Its name in the authors' repository."""
    teacher: str
    """The registered teacher whose latents it decodes."""
    layout: Layout = turbo_vaed
    """How it holds the decoder."""


RELEASES = {
    "turbo_vaed_hunyuan": Release("Turbo-VAED-Hunyuan.pth", "hunyuan"),
    "turbo_vaed_cog": Release("Turbo-VAED-Cog.pth", "cogvideox"),
    "turbo_vaed_dc": Release("Turbo-VAED-DC.pth", "video-dc-ae"),
    "turbo_vaed_ltx": Release("Turbo-VAED-LTX.pth", "ltx"),
    "taehv_wan": Release("taew2_1.pth", "wan", taehv),
    "flash_vaed_wan": Release("models/wan/Flash_VAED_Wan.pth", "wan", flash_vaed),
}
"""Preset -> what was released for it."""

_REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


def load_published(path_or_repo: str | Path, preset: str) -> tuple[Decoder, Scaling | None]:
    """The decoder of a preset with the weights that its authors released, float32, in evaluation mode.

    With it comes the scaling of its latents where only the file has it, as of LTX-Video's.

    Args:
        path_or_repo: the released file (`.pth`, read without unpickling code, or the same tensors as `.safetensors`), a
            folder with it, or `owner/name@revision` of a repository on the hub with all 40 digits of the revision.
        preset: one of `RELEASES`.

    Raises:
        UserError: there is no such file, it cannot be read, or its tensors are not those of the preset.
    """
    if preset not in RELEASES:
        raise UserError(f"nothing was released for the preset '{preset}': expected one of {', '.join(RELEASES)}")
    release = RELEASES[preset]
    file = _find(path_or_repo, release)
    tensors = _read(file)
    decoder = build_published(PRESETS[preset], tensors, f"{file}, as '{preset}',", release.layout)
    known = known_scaling(decoder.config.latents, release.teacher)
    return decoder, None if known else published_scaling(tensors)


def build_published(
    config: DecoderConfig, tensors: dict[str, Tensor], source: str, layout: Layout = turbo_vaed
) -> Decoder:
    """A decoder of a published family with the tensors of a released file.

    Raises:
        UserError: a tensor is missing, left over or of another shape; names `source` and the first one.
    """
    with torch.device("meta"):
        decoder = Decoder(config)
    own = decoder.state_dict()
    names, found = layout(config, {name: tensor.float() for name, tensor in tensors.items()}, list(own))
    wanted = {names[name]: tuple(tensor.shape) for name, tensor in own.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wrong = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
    if wrong:
        raise UserError(
            f"{source} does not fit: {len(wrong)} tensors differ, first {wrong[0]}: found "
            f"{shapes.get(wrong[0], 'nothing')}, expected {wanted.get(wrong[0], 'nothing')}: name this file's preset"
        )
    decoder.load_state_dict({name: found[names[name]] for name in own}, assign=True)
    return decoder.eval()


def published_scaling(tensors: dict[str, Tensor]) -> Scaling | None:
    """The statistics of latents that a released file holds; None if it holds none, or zeros and ones for them."""
    if not {"latents_mean", "latents_std"} <= tensors.keys():
        return None
    mean, std = (tensors[name].float() for name in ("latents_mean", "latents_std"))
    return Scaling(tuple(mean.tolist()), tuple(std.tolist())) if mean.any() or (std != 1).any() else None


def _find(path_or_repo: str | Path, release: Release) -> Path:
    path = Path(path_or_repo)
    released = Path(release.file)
    names = (released.name, released.with_suffix(".safetensors").name)
    for file in (path, path / released, *(path / name for name in names)):
        if file.is_file():
            return file
    if path.exists():
        raise UserError(f"{path} holds neither {' nor '.join(names)}: name the folder or the file of the checkpoint")
    repository = _REPOSITORY.fullmatch(str(path_or_repo))
    if repository is None:
        raise UserError(
            f"{path_or_repo} does not exist: expected a file, a folder, or OWNER/NAME@REVISION of a repository "
            f"on the hub, with the 40 digits of the revision"
        )
    name, revision = repository["name"], repository["revision"]
    what, instead = f"the tensors in {release.file} of {name}@{revision}", "give a local copy of the file"
    (found,) = fetch_files(name, revision, [release.file], what=what, instead=instead)
    return found


def _read(file: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name. Code in it is never run."""
    pickled: Callable[[Path], object] = lambda path: torch.load(path, map_location="cpu", weights_only=True)  # noqa: E731
    read = load_file if file.suffix == ".safetensors" else pickled
    try:
        tensors = read(file)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{file} is not a complete checkpoint of tensors only ({reason}): download it again") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise UserError(f"{file} is not a state dict: expected tensors by their names, as released")
    return tensors
