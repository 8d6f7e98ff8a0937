"""How released checkpoints hold a decoder: the authors' names for our tensors, and their tensors as ours takes them.

A layout takes the config of the preset and all tensors of a file. It gives, by our names, what the authors call each
tensor, and by their names the tensors of the decoder: none is left out and none made up, but for what their code does
beside the decoder.
"""

import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from blocks import BlockConfig, get_block
from nas.model.pipeline_config import known_scaling
from search_spaces import DecoderConfig
from search_spaces.config import StageConfig

Tensors = dict[str, Tensor]
Layout = Callable[[DecoderConfig, Tensors, list[str]], tuple[dict[str, str], Tensors]]
"""Config, tensors of the file, our names -> what the authors call each of them, and their tensors."""

_NOT_THE_DECODER = re.compile(r"(aligned_feature_projection_heads|encoder)\.|latents_(mean|std)$")
_CONV = re.compile(r"\.(depthwise|pointwise)\.")
_TURBO_VAED = {
    ".depthwise.": ".depthwise_conv.",
    ".pointwise.": ".pointwise_conv.",
    "skip_norm.": "norm3.",
    "skip_conv.": "conv_shortcut.",
}
_FLASH_VAED = {
    "norm.weight": "residual.0.gamma",
    "norm1.weight": "residual.0.gamma",
    "conv1.": "residual.2.",
    "norm2.weight": "residual.3.gamma",
    "inner_norm.weight": "residual.3.gamma",
    "conv2.": "residual.6.",
    "skip.": "shortcut.",
    "skip_conv.": "shortcut.",
    "grow.": "time_conv.",
    "conv.conv.": "resample.1.",
}
_FLASH_VAED_ATTENTION = {"norm.weight": "norm.gamma", "project.": "proj.", "": ""}
"""Beginnings of our names -> theirs."""


def turbo_vaed(config: DecoderConfig, tensors: Tensors, own: list[str]) -> tuple[dict[str, str], Tensors]:
    """Turbo-VAED's files, with or without the prefix `decoder.`."""
    found = {name.removeprefix("decoder."): each for name, each in tensors.items() if not _NOT_THE_DECODER.match(name)}
    middle = len({name.split(".")[2] for name in found if name.startswith("mid_block.resnets.")})
    return {name: published_name(config, name, middle) for name in own}, found


def published_name(config: DecoderConfig, name: str, middle: int) -> str:
    """What the authors of Turbo-VAED call a tensor of ours.

    Args:
        config: of the published family.
        name: in `Decoder.state_dict()`.
        middle: how many blocks of stage 0 are the authors' `mid_block`; the others are the first of `up_blocks`.
    """
    group, rest = name.split(".", 1)
    if group == "stem":
        return f"conv_in.{rest}"
    if group == "head":
        if rest.startswith("convs."):
            _, index, tensor = rest.split(".")
            return f"upsampler2d_{int(index) + 1}.conv.{tensor}"
        return f"conv_out.conv.{rest.split('.')[-1]}"
    stage, part, tensor = re.fullmatch(r"(\d+)\.parts\.(\d+)\.(.*)", rest).groups()  # type: ignore[union-attr]
    for old, new in _TURBO_VAED.items():
        tensor = tensor.replace(old, new)
    return _part_name(config, int(stage), int(part), middle, tensor)


def _part_name(config: DecoderConfig, stage: int, part: int, middle: int, tensor: str) -> str:
    if stage == 0 and part < middle:
        return f"mid_block.resnets.{part}.{tensor}"
    before = middle if stage == 0 else 0
    if config.stages[stage].transition is not None:
        if part == 0:
            return f"up_blocks.{stage}.conv_in.{tensor}"
        before += 1
    if config.stages[stage].upsampler is not None:
        if part == before:
            return f"up_blocks.{stage}.upsamplers.0.{tensor}"
        before += 1
    return f"up_blocks.{stage}.resnets.{part - before}.{tensor}"


def taehv(config: DecoderConfig, tensors: Tensors, own: list[str]) -> tuple[dict[str, str], Tensors]:
    """TAEHV's files: the place of each part in one sequence, in which enlargements and activations count.

    Its latents are at unit scale and its frames in [0, 1]: the first convolution brings the teacher's latents there,
    and the last gives [-1, 1].
    """
    places = {"stem.widen": "decoder.1"}
    place = 3
    for name, part in _parts(config):
        if get_block(part.name).role == "upsampler":
            places |= {f"{name}.grow": f"decoder.{place + 1}.conv", f"{name}.conv.conv": f"decoder.{place + 2}"}
            place += 3
        else:
            places |= {f"{name}.convs.{index}": f"decoder.{place}.conv.{index}" for index in (0, 2, 4)}
            place += 1
    last = f"decoder.{place + 1}"
    modules = places | {"head.conv": last, "stem.conv": "latents"}
    found = {name: tensor for name, tensor in tensors.items() if not _NOT_THE_DECODER.match(name)}
    found |= {name: 2 * found[name] for name in (f"{last}.weight", f"{last}.bias") if name in found}
    if f"{last}.bias" in found:
        found[f"{last}.bias"] = found[f"{last}.bias"] - 1
    return {name: _replace_beginning(name, modules) for name in own}, found | _to_unit_scale(config)


def flash_vaed(config: DecoderConfig, tensors: Tensors, own: list[str]) -> tuple[dict[str, str], Tensors]:
    """Flash-VAED's file of Wan's decoder, which keeps the names of Wan's own code; weights of norms have axes of 1."""
    places = ["middle.0", "middle.1", "middle.2", *(f"upsamples.{index}" for index in range(len(own)))]
    modules = {"stem.conv.": "conv2.", "stem.widen.": "decoder.conv1."}
    modules |= {"head.norm.weight": "decoder.head.0.gamma", "head.conv.": "decoder.head.2."}
    for (name, _), place in zip(_parts(config), places, strict=False):
        attends = f"{name}.to_qkv.weight" in own
        inner = _FLASH_VAED_ATTENTION if attends else _FLASH_VAED
        modules |= {f"{name}.{old}": f"decoder.{place}.{new}" for old, new in inner.items()}
    names = {name: _CONV.sub(r".\1_conv.", _replace_beginning(name, modules)) for name in own}
    found = {name: tensor for name, tensor in tensors.items() if name.startswith(("decoder.", "conv2."))}
    return names, {name: each.flatten() if name.endswith(".gamma") else each for name, each in found.items()}


def _parts(config: DecoderConfig) -> Iterator[tuple[str, BlockConfig]]:
    """Names in the decoder and configs of the parts of all stages, in the order of execution."""
    for index, stage in enumerate(config.stages):
        for position, part in enumerate(_in_order(stage)):
            yield f"stages.{index}.parts.{position}", part


def _in_order(stage: StageConfig) -> list[BlockConfig]:
    before = [part for part in (stage.transition, stage.upsampler) if part is not None]
    return [*before, *[stage.block] * stage.depth]


def _replace_beginning(name: str, replaced: dict[str, str]) -> str:
    """`name` with the first of these beginnings that it has replaced."""
    beginning = next(each for each in replaced if name.startswith(each))
    return replaced[beginning] + name.removeprefix(beginning)


def _to_unit_scale(config: DecoderConfig) -> Tensors:
    """The 1x1 convolution that brings Wan's latents to the scale that a pipeline has them in."""
    channels = config.latents.channels
    scaling = known_scaling(config.latents, "wan")
    assert scaling is not None
    mean, std = map(torch.tensor, scaling.statistics(channels))
    return {"latents.weight": torch.diag(1 / std)[:, :, None, None], "latents.bias": -mean / std}
