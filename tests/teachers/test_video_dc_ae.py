"""Video DC-AE: names and shapes as published, outputs of the published classes, parts against other formulas."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.teachers.architectures.video_dc_ae import AutoencoderVideoDC
from nas.teachers.architectures.video_dc_ae_layers import GrowingShortcut, LinearAttention, RmsNorm, ShrinkingShortcut

DATA = Path(__file__).parents[1] / "reference"
SHAPES = DATA / "video_dc_ae_shapes.json"
"""Name -> shape of every tensor of the published checkpoint."""
OUTPUTS = DATA / "video_dc_ae_outputs.safetensors"
"""Outputs of the published implementation with the weights of `narrow()`."""


def chirp(*shape: int, offset: int = 0) -> Tensor:
    """Values in [-1, 1] by a formula whose rows are independent of each other, unlike those of sin(a * index)."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + offset
    return torch.sin(0.37 * index.square()).float().reshape(shape)


def fill(model: nn.Module) -> None:
    """Weights by formula: gain about one for convolutions, norms close to one, small biases."""
    for offset, parameter in enumerate(model.parameters()):
        values = chirp(*parameter.shape, offset=offset)
        if parameter.ndim > 1:
            values *= (2 / parameter[0].numel()) ** 0.5
        else:
            values = 0.1 * values
        parameter.data = values
    for module in model.modules():
        if isinstance(module, RmsNorm):
            module.weight.data += 1


def narrow(temporal_stages: tuple[int, ...] = (1, 2)) -> AutoencoderVideoDC:
    """Every kind of part in four stages: 8x smaller in space, 4x in time, weights by formula."""
    model: AutoencoderVideoDC = AutoencoderVideoDC(
        latent_channels=8,
        block_out_channels=(4, 8, 32, 32),
        encoder_layers_per_block=(1, 2, 1, 1),
        decoder_layers_per_block=(1, 1, 2, 1),
        attention_stages=(2, 3),
        temporal_stages=temporal_stages,
    )
    fill(model)
    model.eval()
    return model


def encode(model: AutoencoderVideoDC, video: Tensor) -> Tensor:
    """Latents, without the output class."""
    return model.encode(video, return_dict=False)[0]


def decode(model: AutoencoderVideoDC, latents: Tensor) -> Tensor:
    """Frames, without the output class."""
    return model.decode(latents, return_dict=False)[0]


@torch.no_grad()
def narrow_outputs() -> dict[str, Tensor]:
    """This implementation's counterpart of OUTPUTS."""
    model = narrow()
    latents = encode(model, chirp(1, 3, 8, 16, 24))
    return {
        "latents": latents,
        "frames": decode(model, latents),
        "single_frame": decode(model, latents[:, :, :1]),
    }


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected."""
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def published() -> AutoencoderVideoDC:
    """The published size, without weights."""
    with torch.device("meta"):
        model: AutoencoderVideoDC = AutoencoderVideoDC()
    return model


def test_names_and_shapes_are_those_of_the_published_checkpoint(published: AutoencoderVideoDC) -> None:
    expected = json.loads(SHAPES.read_text())
    assert len(expected) == 339
    assert {name: list(tensor.shape) for name, tensor in published.state_dict().items()} == expected


def test_parameters_of_the_published_size(published: AutoencoderVideoDC) -> None:
    counts = [sum(p.numel() for p in part.parameters()) for part in (published.encoder, published.decoder)]
    assert counts == [220_439_936, 239_022_211]
    assert (published.spatial_compression_ratio, published.temporal_compression_ratio) == (32, 4)


def test_the_published_checkpoint_loads_without_renaming(published: AutoencoderVideoDC) -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in json.loads(SHAPES.read_text()).items()}
    assert list(published.load_state_dict(state, strict=True, assign=True)) == [[], []]


@pytest.mark.parametrize(("latent_frames", "frames"), [(1, 1), (2, 8), (3, 12), (5, 20)])
def test_frames_of_the_published_size(published: AutoencoderVideoDC, latent_frames: int, frames: int) -> None:
    decoded = decode(published, torch.empty(2, 128, latent_frames, 2, 3, device="meta"))
    assert decoded.shape == (2, 3, frames, 64, 96)
    encoded = encode(published, torch.empty(2, 3, 4 * latent_frames, 64, 96, device="meta"))
    assert encoded.shape == (2, 128, latent_frames, 2, 3)


def test_taps_of_the_decoder_are_passed_once_each(published: AutoencoderVideoDC) -> None:
    passed: list[tuple[int, tuple[int, ...]]] = []

    def keep(index: int) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: passed.append((index, tuple(output.shape[1:])))

    handles = [
        published.decoder.get_submodule(f"stages.{index}").register_forward_hook(keep(index)) for index in range(6)
    ]
    published.decode(torch.empty(1, 128, 3, 2, 2, device="meta"))
    for handle in handles:
        handle.remove()
    assert passed == [
        (5, (1024, 3, 2, 2)),
        (4, (1024, 6, 4, 4)),
        (3, (512, 12, 8, 8)),
        (2, (512, 12, 16, 16)),
        (1, (256, 12, 32, 32)),
        (0, (128, 12, 64, 64)),
    ]


@pytest.mark.parametrize("name", ["latents", "frames", "single_frame"])
def test_outputs_are_those_of_the_published_implementation(name: str) -> None:
    assert relative_error(narrow_outputs()[name], load_file(OUTPUTS)[name]) < 1e-5


def test_outputs_of_a_larger_instance_are_those_of_the_published_implementation() -> None:
    folder = os.environ.get("NAS_REFERENCE")
    if not folder:
        pytest.skip("NAS_REFERENCE does not name the folder with video_dc_ae/, the published implementation's outputs")
    reference = Path(folder) / "video_dc_ae"
    small = json.loads((reference / "index.json").read_text())["small"]
    tensors = load_file(reference / "video_dc_ae_small.safetensors")
    depths = small["depth_list"]
    model = AutoencoderVideoDC(small["latent_channels"], small["width_list"], depths, depths).eval()
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("io.")})
    with torch.no_grad():
        latents = encode(model, tensors["io.video"])
        frames = decode(model, tensors["io.latents"])
    errors = relative_error(latents, tensors["io.latents"]), relative_error(frames, tensors["io.frames"])
    print(f"relative error of latents {errors[0]:.2e}, of frames {errors[1]:.2e}")
    assert max(errors) < 2e-6


def test_frames_are_not_clamped() -> None:
    assert narrow_outputs()["frames"].abs().max() > 1.5


@torch.no_grad()
def test_one_latent_frame_skips_every_step_in_time() -> None:
    """As if the stages had no step in time; with two latent frames that is another function."""
    latents = chirp(1, 8, 2, 2, 3)
    with_time, without_time = narrow(), narrow(temporal_stages=())
    single = latents[:, :, :1]
    assert torch.equal(decode(with_time, single), decode(without_time, single))
    assert decode(with_time, latents).shape[2] == 8
    assert decode(without_time, latents).shape[2] == 2


@torch.no_grad()
def test_later_frames_change_earlier_ones() -> None:
    latents = chirp(1, 8, 3, 2, 2)
    changed = latents.clone()
    changed[:, :, 2] += 1
    model = narrow()
    difference = (decode(model, latents) - decode(model, changed)).abs().amax(dim=(0, 1, 3, 4))
    assert difference[:4].min() > 1e-3


@torch.no_grad()
def test_samples_of_a_batch_do_not_touch() -> None:
    model, latents = narrow(), chirp(2, 8, 2, 2, 2)
    alone = torch.cat([decode(model, sample[None]) for sample in latents])
    assert relative_error(decode(model, latents), alone) < 1e-5


def make_attention(channels: int) -> LinearAttention:
    """Weights by formula."""
    attention = LinearAttention(channels)
    fill(attention)
    return attention


@torch.no_grad()
def test_attention_is_the_quadratic_formula() -> None:
    """Every position a mean of the values, weighted by relu(k) . relu(q): heads of 32, first of one scale, then two."""
    attention = make_attention(64)
    x = chirp(1, 64, 2, 3, 4)
    qkv = attention.qkv(x)
    heads = torch.cat([qkv, attention.aggreg[0](qkv)], dim=1).double().reshape(4, 96, 24)
    mixed = []
    for head in heads:
        query, key, value = head.split(32)
        weights = key.relu().T @ query.relu()
        mixed.append(value @ weights / weights.sum(dim=0))
    expected = attention.proj(torch.cat(mixed).float().reshape(1, 128, 2, 3, 4))
    assert relative_error(attention(x), expected) < 1e-5


@torch.no_grad()
def test_attention_sums_in_float32() -> None:
    """The sums over positions are beyond the largest float16."""
    attention = make_attention(32)
    x = 60 * chirp(1, 32, 2, 16, 16)
    exact = attention(x)
    half = attention.half()(x.half())
    assert half.dtype == torch.float16
    assert relative_error(half.float(), exact) < 0.02


@torch.no_grad()
def test_half_precision_is_close() -> None:
    latents = chirp(1, 8, 2, 2, 3)
    frames = decode(narrow().bfloat16(), latents.bfloat16())
    assert frames.dtype == torch.bfloat16
    assert relative_error(frames.float(), decode(narrow(), latents)) < 0.1


@pytest.mark.parametrize("temporal", [False, True])
def test_shortcut_up_and_down_again_is_the_identity(temporal: bool) -> None:
    x = chirp(1, 8, 2, 3, 4)
    up = GrowingShortcut(8, 4, temporal)(x)
    assert up.shape == (1, 4, 4 if temporal else 2, 6, 8)
    assert torch.allclose(ShrinkingShortcut(4, 8, temporal)(up), x, atol=1e-6)


def test_shortcuts_without_time_are_the_2d_ones() -> None:
    x = chirp(1, 8, 2, 4, 6)
    frames = rearrange(x, "b c t h w -> (b t) c h w")
    up = F.pixel_shuffle(frames.repeat_interleave(2, dim=1), 2)
    assert torch.equal(rearrange(GrowingShortcut(8, 4, False)(x), "b c t h w -> (b t) c h w"), up)
    down = reduce(F.pixel_unshuffle(frames, 2), "n (c run) h w -> n c h w", "mean", run=2)
    assert torch.allclose(rearrange(ShrinkingShortcut(8, 16, False)(x), "b c t h w -> (b t) c h w"), down, atol=1e-6)


@torch.no_grad()
def test_outputs_have_the_classes_of_diffusers() -> None:
    model, video = narrow(), chirp(1, 3, 4, 8, 8)
    latents: Any = model.encode(video)
    frames: Any = model.decode(latents.latent)
    assert torch.equal(latents.latent, encode(model, video))
    assert torch.equal(frames.sample, decode(model, latents.latent))
    assert torch.equal(model(video).sample, frames.sample)


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    model = narrow()
    model.save_pretrained(tmp_path)
    loaded = AutoencoderVideoDC.from_pretrained(tmp_path)
    assert loaded.config.block_out_channels == [4, 8, 32, 32]
    latents = chirp(1, 8, 1, 2, 2)
    assert torch.equal(decode(loaded, latents), decode(model, latents))


@pytest.mark.parametrize("shape", [(1, 16, 16), (6, 16, 16), (8, 20, 16), (8, 16, 12)])
def test_a_clip_off_the_grid_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"multiple of 4, .* of 8, got {shape[0]} frames of {shape[1]}x{shape[2]}"):
        narrow().encode(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"latent_channels": 96}, "latent_channels must divide"),
        ({"block_out_channels": (96, 256, 512, 512, 1024, 1024)}, "divide four times the one before, got 96, 256"),
        ({"attention_stages": (3, 6)}, "attention_stages must be among 0 to 5"),
        ({"temporal_stages": (4, 5)}, "temporal_stages must be among 0 to 4"),
        ({"block_out_channels": (8, 16, 32, 16, 64, 128)}, "multiple of 32, got 16 at stage 3"),
        ({"decoder_layers_per_block": (3, 3)}, "got 2 numbers .* for 6 stages"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason), torch.device("meta"):
        AutoencoderVideoDC(**arguments)
