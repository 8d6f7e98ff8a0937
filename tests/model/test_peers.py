"""What the designs after other authors' decoders share with the published networks, and where they part."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from search_spaces import PRESETS, Decoder, LatentSpec, adapt

WAN = LatentSpec(channels=16, spatial=8, temporal=4)
PUBLISHED = {"taehv_wan": 9_844_611, "flash_vaed_wan": 5_859_723}
"""Parameters of the published networks."""


def taehv(weights: dict[str, Tensor], latents: Tensor) -> Tensor:
    """TAEHV's decoder written down from its description, for one clip, with the weights of a preset in our names.

    All frames are decoded; limits on latents and the range of colours aside. `(1, c, t, h, w)` -> `(1, 3, 4 t, ...)`.
    """
    x = latents[0].transpose(0, 1)
    x = functional.conv2d(x, weights["stem.conv.weight"], weights["stem.conv.bias"], padding=1).relu()
    for stage, steps in enumerate((0, 1, 2, 2)):
        position = 0
        if steps:
            name = f"stages.{stage}.parts.0"
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = functional.conv2d(x, weights[f"{name}.grow.weight"])
            x = x.reshape(-1, x.shape[1] // steps, *x.shape[2:])
            x = functional.conv2d(x, weights[f"{name}.conv.conv.weight"], padding=1)
            position = 1
        while f"stages.{stage}.parts.{position}.convs.0.weight" in weights:
            name = f"stages.{stage}.parts.{position}.convs"
            before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
            hidden = torch.cat([x, before], dim=1)
            for index in (0, 2, 4):
                weight, bias = weights[f"{name}.{index}.weight"], weights[f"{name}.{index}.bias"]
                hidden = functional.conv2d(hidden, weight, bias, padding=1)
                hidden = hidden if index == 4 else hidden.relu()
            x = (x + hidden).relu()
            position += 1
    x = functional.conv2d(x.relu(), weights["head.conv.weight"], weights["head.conv.bias"], padding=1)
    return x.transpose(0, 1)[None]


@torch.no_grad()
def published_and_ours(spec: LatentSpec) -> tuple[Tensor, Tensor]:
    """Frames of both for the same narrow random weights, the biases that the published network lacks at zero."""
    torch.manual_seed(0)
    decoder = Decoder(adapt(PRESETS["taehv_wan"], spec, 8)).eval()
    for name, parameter in decoder.named_parameters():
        if name.endswith(".conv.conv.bias"):
            parameter.zero_()
    latents = torch.randn(1, 16, 5, 3, 4)
    return taehv(decoder.state_dict(), latents), decoder(latents)


def test_where_no_frame_is_dropped_taehv_is_the_same() -> None:
    published, ours = published_and_ours(replace(WAN, frame_rule="multiple"))
    assert published.shape == ours.shape == (1, 3, 20, 24, 32) and published.std() > 0.01
    torch.testing.assert_close(ours, published, rtol=1e-5, atol=1e-6)


def test_where_frames_are_dropped_taehv_differs_at_the_start_alone() -> None:
    published, ours = published_and_ours(WAN)
    trimmed = published[:, :, 3:]
    assert trimmed.shape == ours.shape == (1, 3, 17, 24, 32)
    apart = (ours - trimmed).abs().amax(dim=(0, 1, 3, 4))
    first = int((apart > 1e-5).nonzero().max()) + 1
    assert 0 < first <= 5 and apart.max() > 1e-4
    torch.testing.assert_close(ours[:, :, 5:], trimmed[:, :, 5:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_differ_as_is_said(name: str, published: int) -> None:
    with torch.device("meta"):
        ours = sum(parameter.numel() for parameter in Decoder(PRESETS[name]).parameters())
    assert published - ours == {"taehv_wan": -256, "flash_vaed_wan": 8_448}[name]
