"""LTX-Video and LTX-2: noise levels, either direction of time, upsampling as their configurations say."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.teachers import Teacher
from tests.support.small_teachers import (
    LTX_TOLD_A_NOISE_LEVEL,
    LTX_WITHOUT_NOISE,
    open_original,
    open_small,
    random_latents,
    random_video,
)


def check_truncated(teacher: Teacher, latents: Tensor) -> None:
    full = teacher.decode_with_features(latents, teacher.tap_names)[1]
    for count in range(1, len(teacher.tap_names) + 1):
        found = teacher.features(latents, teacher.tap_names[:count])
        assert all(torch.equal(found[name], full[name]) for name in teacher.tap_names[:count]), count


@pytest.mark.usefixtures("plain_convolutions")
def test_ltx_that_adds_noise_decodes_alike_each_time(tmp_path: Path) -> None:
    teacher = open_small("ltx", tmp_path, **LTX_TOLD_A_NOISE_LEVEL)
    original = open_original("ltx", tmp_path / "ltx")
    assert (teacher.spec.temporal, teacher.spec.spatial, teacher.spec.causal) == (8, 32, False)
    latents, level = random_latents(teacher.spec, 3), torch.tensor([0.05])
    torch.manual_seed(1)
    frames = teacher.decode(latents)
    torch.manual_seed(2)
    assert torch.equal(teacher.decode(latents), frames) and frames.shape == (1, 3, 17, 64, 96)
    by_seed = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        by_seed.append(original.decode(latents, level).sample.clamp(-1, 1))
    assert torch.equal(frames, by_seed[0])
    assert float((frames - by_seed[1]).abs().max()) > 0.02, "there is noise in it"
    torch.manual_seed(0)
    assert float((original.decode(latents, 10 * level).sample - frames).abs().max()) > 0.02, "the level counts"
    check_truncated(teacher, latents)
    assert torch.equal(teacher.decode(latents), frames)
    grids = [(tap.channels, tap.temporal, tap.spatial) for tap in teacher.taps.values()]
    assert grids == [(128, 1, 1), (64, 2, 2), (32, 4, 4), (16, 8, 8)]


def test_ltx_that_is_told_a_level_keeps_its_end_after_an_error(tmp_path: Path) -> None:
    teacher = open_small("ltx", tmp_path, **LTX_TOLD_A_NOISE_LEVEL)
    latents = random_latents(teacher.spec, 2)
    frames, before = teacher.decode(latents), [(name, id(module)) for name, module in teacher.model.named_modules()]
    handle = teacher.find_tap(teacher.model, "mid_block").register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        teacher.features(latents, ("mid_block",))
    handle.remove()
    assert [(name, id(module)) for name, module in teacher.model.named_modules()] == before
    assert torch.equal(teacher.decode(latents), frames)


@pytest.mark.usefixtures("plain_convolutions")
def test_ltx_with_other_downsampling(tmp_path: Path) -> None:
    """The encoder of 0.9.5 refines space and time in different blocks; no noise any more."""
    teacher = open_small("ltx", tmp_path, **LTX_WITHOUT_NOISE)
    video = random_video(17, 64, 96)
    latents = teacher.encode(video)
    assert latents.shape == (1, 128, 3, 2, 3) == (1, *teacher.spec.latent_shape(17, 64, 96))
    assert teacher.decode(latents).shape == video.shape
    original = open_original("ltx", tmp_path / "ltx")
    assert torch.equal(teacher.decode(latents), original.decode(latents, torch.tensor([0.05])).sample.clamp(-1, 1))
    check_truncated(teacher, latents)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["ltx", "ltx2"])
def test_ltx_is_causal_as_its_configuration_says(name: str, causal: bool, tmp_path: Path) -> None:
    teacher = open_small(name, tmp_path, decoder_causal=causal)
    assert teacher.spec.causal is causal
    latents = random_latents(teacher.spec, 4)
    whole, part = teacher.decode(latents), teacher.decode(latents[:, :, :2])
    difference = float((whole[:, :, :9] - part).abs().max())
    assert difference < 1e-4 if causal else difference > 1e-2
    check_truncated(teacher, latents)


@pytest.mark.parametrize(
    ("scaling", "kinds", "temporal", "spatial"),
    [
        (True, ("spatiotemporal",) * 3, 8, 32),
        (False, ("spatiotemporal",) * 3, 1, 4),
        ((True, True, False), ("temporal", "spatiotemporal", "spatial"), 2, 16),
        ((False, True, True), ("spatial", "spatiotemporal", "temporal"), 2, 16),
    ],
)
def test_ltx2_scaling_as_the_class_reads_it(
    scaling: bool | tuple[bool, ...], kinds: tuple[str, ...], temporal: int, spatial: int, tmp_path: Path
) -> None:
    """One word for all blocks, or a list that begins at the frames while the list of kinds begins at the latents."""
    changes = {"upsample_residual": False, "upsample_factor": (1, 1, 1)}
    teacher = open_small("ltx2", tmp_path, decoder_spatio_temporal_scaling=scaling, upsample_type=kinds, **changes)
    assert (teacher.spec.temporal, teacher.spec.spatial) == (temporal, spatial)
    frames = teacher.decode(random_latents(teacher.spec, 2))
    assert frames.shape == (1, 3, temporal + 1, 2 * spatial, 3 * spatial)


def test_ltx2_with_other_upsampling(tmp_path: Path) -> None:
    """Space and time may be refined in different blocks; compression is what they make together."""
    changes = {
        "decoder_block_out_channels": (32, 64, 128, 256),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
        "decoder_inject_noise": False,
        "decoder_spatio_temporal_scaling": (True, True, True, True),
        "upsample_type": ("spatiotemporal", "temporal", "spatial", "spatiotemporal"),
        "upsample_residual": (True, False, False, True),
        "upsample_factor": (2, 2, 2, 2),
    }
    teacher = open_small("ltx2", tmp_path, **changes)
    video = random_video(9, 64, 96)
    assert (teacher.spec.temporal, teacher.spec.spatial) == (8, 32)
    assert teacher.decode(teacher.encode(video)).shape == video.shape
    grids = [(tap.temporal, tap.spatial) for tap in teacher.taps.values()]
    assert grids == [(1, 1), (2, 2), (4, 2), (4, 4), (8, 8)]
    check_truncated(teacher, teacher.encode(video))
