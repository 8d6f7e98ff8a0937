"""Other authors' decoders: their networks, written down from descriptions, against the presets with their weights.

Checkpoints have the names and shapes of those that were published, and random weights.
"""

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.model import TurboVAED
from nas.model.pipeline_config import known_scaling
from nas.terminal.errors import UserError
from search_spaces import PRESETS, Decoder, LatentSpec, adapt
from tests.teachers.test_video_dc_ae import relative_error

WAN = LatentSpec(channels=16, spatial=8, temporal=4)
FILES = {"taehv_wan": "taew2_1.pth", "flash_vaed_wan": "Flash_VAED_Wan.pth"}
PUBLISHED = {"taehv_wan": 9_844_611, "flash_vaed_wan": 5_859_723}
"""Parameters of the published decoders, without the 1x1 convolution of latents before them."""

Tensors = dict[str, Tensor]


def random_weights(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    torch.manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        fan_in = max(1, torch.Size(shape[1:]).numel())
        one = name.endswith("gamma")
        tensors[name] = torch.ones(shape) + 0.3 * torch.randn(shape) if one else torch.randn(shape) * fan_in**-0.5
    return tensors


def taehv_shapes() -> dict[str, tuple[int, ...]]:
    """The decoder is one sequence: limit, convolution, ReLU, three times (three memory blocks, enlargement, growth in
    time, convolution), ReLU, convolution."""
    shapes: dict[str, tuple[int, ...]] = {"decoder.1.weight": (256, 16, 3, 3), "decoder.1.bias": (256,)}
    widths, steps = (256, 128, 64, 64), (1, 2, 2)
    for stage, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        first = 3 + 6 * stage
        for block in range(first, first + 3):
            for index in (0, 2, 4):
                inputs = 2 * wide if index == 0 else wide
                shapes[f"decoder.{block}.conv.{index}.weight"] = (wide, inputs, 3, 3)
                shapes[f"decoder.{block}.conv.{index}.bias"] = (wide,)
        shapes[f"decoder.{first + 4}.conv.weight"] = (wide * steps[stage], wide, 1, 1)
        shapes[f"decoder.{first + 5}.weight"] = (narrow, wide, 3, 3)
    return shapes | {"decoder.22.weight": (3, 64, 3, 3), "decoder.22.bias": (3,), "encoder.0.weight": (64, 3, 3, 3)}


def taehv(weights: Tensors, latents: Tensor) -> Tensor:
    """Latents at unit scale `(1, c, t, h, w)` -> frames `(1, 3, 4 (t - 1) + 1, 8 h, 8 w)` in [0, 1]."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        return functional.conv2d(x, weight, weights.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    x = conv("decoder.1", 3 * torch.tanh(latents[0].transpose(0, 1) / 3)).relu()
    for first in (3, 9, 15):
        for block in range(first, first + 3):
            past = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
            hidden = conv(f"decoder.{block}.conv.0", torch.cat([x, past], dim=1)).relu()
            hidden = conv(f"decoder.{block}.conv.2", hidden).relu()
            x = (conv(f"decoder.{block}.conv.4", hidden) + x).relu()
        channels = x.shape[1]
        x = conv(f"decoder.{first + 4}.conv", functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = conv(f"decoder.{first + 5}", x.reshape(-1, channels, *x.shape[2:]))
    frames = conv("decoder.22", x.relu()).clamp(0, 1)
    return frames[3:].transpose(0, 1)[None]


def conv_shapes(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def separable_shapes(name: str, inputs: int, outputs: int, size: int) -> dict[str, tuple[int, ...]]:
    depthwise = conv_shapes(f"{name}.depthwise_conv", inputs, 1, size, size, size)
    return depthwise | conv_shapes(f"{name}.pointwise_conv", outputs, inputs, 1, 1, 1)


def residual_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Depthwise in time and space; frame by frame, and with a shortcut, where it is narrow."""
    axes = (1, 1) if outputs < 100 else (1, 1, 1)
    shapes = {f"{name}.residual.0.gamma": (inputs, *axes), f"{name}.residual.3.gamma": (outputs, *axes)}
    for place, channels in ((2, inputs), (6, outputs)):
        where = f"{name}.residual.{place}"
        narrow = conv_shapes(where, outputs, channels, 3, 3)
        shapes |= narrow if outputs < 100 else separable_shapes(where, channels, outputs, 3)
    if outputs < 100:
        return shapes | conv_shapes(f"{name}.shortcut", outputs, inputs, 1, 1)
    return shapes if inputs == outputs else shapes | separable_shapes(f"{name}.shortcut", inputs, outputs, 1)


def flash_shapes() -> dict[str, tuple[int, ...]]:
    """The names of Wan's own code. The encoder's `conv1` aside, `conv2` mixes the latents before the decoder."""
    shapes = conv_shapes("conv1", 32, 32, 1, 1, 1) | conv_shapes("conv2", 16, 16, 1, 1, 1)
    shapes |= conv_shapes("decoder.conv1", 384, 16, 3, 3, 3)
    shapes |= {"decoder.middle.1.norm.gamma": (384, 1, 1)}
    shapes |= conv_shapes("decoder.middle.1.to_qkv", 3 * 384, 384, 1, 1)
    shapes |= conv_shapes("decoder.middle.1.proj", 384, 384, 1, 1)
    wide = ("middle.0", "middle.2", *(f"upsamples.{place}" for place in (0, 1, 2, 4, 5, 6)))
    for name in wide:
        shapes |= residual_shapes(f"decoder.{name}", 192 if name == "upsamples.4" else 384, 384)
    for place, inputs, outputs in ((3, 384, 192), (7, 384, 24), (11, 24, 12)):
        shapes |= conv_shapes(f"decoder.upsamples.{place}.resample.1", outputs, inputs, 3, 3)
        if place < 11:
            shapes |= conv_shapes(f"decoder.upsamples.{place}.time_conv", 2 * inputs, inputs, 3, 1, 1)
    for place in (8, 9, 10, 12, 13, 14):
        width = 24 if place < 11 else 12
        shapes |= residual_shapes(f"decoder.upsamples.{place}", width, width)
    return shapes | {"decoder.head.0.gamma": (12, 1, 1, 1)} | conv_shapes("decoder.head.2", 3, 12, 3, 3, 3)


class FlashVaed:
    """Flash-VAED's decoder of Wan 2.1, a whole clip at once, on `(1, c, t, h, w)`."""

    def __init__(self, weights: Tensors) -> None:
        self.weights = weights

    def conv(self, name: str, x: Tensor) -> Tensor:
        """Causal in time where the kernel has a length; 2-D kernels work on each frame."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        if weight.ndim == 4:
            weight = weight[:, :, None]
        length, height, width = weight.shape[2:]
        x = functional.pad(x, (width // 2, width // 2, height // 2, height // 2, length - 1, 0))
        out: Tensor = functional.conv3d(x, weight, bias, groups=x.shape[1] // weight.shape[1])
        return out

    def separable(self, name: str, x: Tensor) -> Tensor:
        return self.conv(f"{name}.pointwise_conv", self.conv(f"{name}.depthwise_conv", x))

    def norm(self, name: str, x: Tensor) -> Tensor:
        gamma = self.weights[f"{name}.gamma"].flatten()[:, None, None, None]
        out: Tensor = functional.normalize(x, dim=1) * gamma * float(x.shape[1]) ** 0.5
        return out

    def residual(self, name: str, x: Tensor) -> Tensor:
        conv = self.separable if f"{name}.residual.2.depthwise_conv.weight" in self.weights else self.conv
        hidden = conv(f"{name}.residual.2", functional.silu(self.norm(f"{name}.residual.0", x)))
        hidden = conv(f"{name}.residual.6", functional.silu(self.norm(f"{name}.residual.3", hidden)))
        has_shortcut = any(each.startswith(f"{name}.shortcut") for each in self.weights)
        return hidden + (conv(f"{name}.shortcut", x) if has_shortcut else x)

    def attention(self, name: str, x: Tensor) -> Tensor:
        qkv = self.conv(f"{name}.to_qkv", self.norm(f"{name}.norm", x))[0].flatten(2)
        query, key, value = (each.permute(1, 2, 0) for each in qkv.chunk(3))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.conv(f"{name}.proj", mixed.permute(2, 0, 1).reshape(x.shape))

    def upsample(self, name: str, x: Tensor) -> Tensor:
        """The first frame stays one, and the convolution in time begins after it."""
        if f"{name}.time_conv.weight" in self.weights:
            first, others = x[:, :, :1], x[:, :, 1:]
            even, odd = self.conv(f"{name}.time_conv", others).chunk(2, dim=1)
            x = torch.cat([first, torch.stack([even, odd], dim=3).flatten(2, 3)], dim=2)
        return self.conv(f"{name}.resample.1", functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0)))

    def __call__(self, latents: Tensor) -> Tensor:
        x = self.conv("decoder.conv1", self.conv("conv2", latents))
        x = self.residual("decoder.middle.0", x)
        x = self.residual("decoder.middle.2", self.attention("decoder.middle.1", x))
        for place in range(15):
            step = self.upsample if place in (3, 7, 11) else self.residual
            x = step(f"decoder.upsamples.{place}", x)
        return self.conv("decoder.head.2", functional.silu(self.norm("decoder.head.0", x))).clamp(-1, 1)


def released(name: str, folder: Path) -> Tensors:
    weights = random_weights(taehv_shapes() if name == "taehv_wan" else flash_shapes())
    if name == "taehv_wan":  # frames around the middle of [0, 1], few of them at its ends
        weights["decoder.22.weight"] *= 0.1
        weights["decoder.22.bias"].fill_(0.5)
    torch.save(weights, folder / FILES[name])
    return weights


@pytest.mark.parametrize("name", FILES)
@torch.no_grad()
def test_a_published_checkpoint_gives_the_published_frames(name: str, tmp_path: Path) -> None:
    weights = released(name, tmp_path)
    scaling = known_scaling(WAN, "wan")
    assert scaling is not None
    mean, std = (torch.tensor(each)[:, None, None, None] for each in scaling.statistics(16))
    unit = 1.5 * torch.randn(1, 16, 4, 3, 4)
    wanted = 2 * taehv(weights, unit) - 1 if name == "taehv_wan" else FlashVaed(weights)(unit * std + mean)
    model = TurboVAED.from_published(tmp_path, name)
    frames = model.decode(unit * std + mean, return_dict=False)[0]
    assert frames.shape == wanted.shape == (1, 3, 13, 24, 32) and wanted.std() > 0.1
    assert (wanted.abs() < 1).float().mean() > 0.5, "what is cut off proves nothing"
    assert relative_error(frames, wanted) < 1e-4
    streamed = list(model.stream(torch.split(unit * std + mean, [1, 2, 1], dim=2)))
    assert [each.shape[2] for each in streamed] == [1, 8, 4]
    assert relative_error(torch.cat(streamed, dim=2), wanted) < 1e-4
    model.save_pretrained(tmp_path / "model")
    again = TurboVAED.from_pretrained(tmp_path / "model")
    assert torch.equal(again.decode(unit * std + mean, return_dict=False)[0], frames)


@pytest.mark.parametrize("name", FILES)
def test_no_tensor_is_left_out_or_made_up(name: str, tmp_path: Path) -> None:
    weights = released(name, tmp_path)
    last = "decoder.22.bias" if name == "taehv_wan" else "decoder.head.2.bias"
    for change in ({last: None}, {last: torch.zeros(5)}, {"decoder.more.weight": torch.zeros(2)}):
        tensors = {each: value for each, value in {**weights, **change}.items() if value is not None}
        torch.save(tensors, tmp_path / FILES[name])
        with pytest.raises(UserError, match=re.escape(f"1 tensors differ, first {min(change)}")):
            TurboVAED.from_published(tmp_path, name)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_as_many_as_published(name: str, published: int) -> None:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    with torch.device("meta"):
        decoder = Decoder(PRESETS[name])
    assert count(decoder) - (16 * 16 + 16) == published


def test_searches_know_the_designs_as_before() -> None:
    """Without what only published weights need: digests stand in files of finished searches."""
    found = {name: [adapt(PRESETS[name], WAN, divisor).digest() for divisor in (1, 4)] for name in FILES}
    assert found == {
        "taehv_wan": ["937f7035f85d", "7d8bbbbd1903"],
        "flash_vaed_wan": ["d2104217e66d", "81ae9bad0ee1"],
    }
