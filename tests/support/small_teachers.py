"""Small instances of every teacher's real class with random weights, saved as diffusers saves them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nas.machine.torchvision_operators import import_torchvision
from nas.teachers import Teacher, load_teacher
from nas.testing.teacher_contract import random_latents as random_latents
from nas.testing.teacher_contract import random_video as random_video

_FOUR = (8, 8, 16, 16)
_ONCE = (1, 1, 1, 1, 1)

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "wan": ("AutoencoderKLWan", {"base_dim": 8, "z_dim": 16, "num_res_blocks": 1}),
    "wan2.2": (
        "AutoencoderKLWan",
        {
            "base_dim": 8,
            "decoder_base_dim": 8,
            "z_dim": 48,
            "num_res_blocks": 1,
            "is_residual": True,
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "scale_factor_spatial": 16,
            "latents_mean": [0.01 * index for index in range(48)],
            "latents_std": [1 + 0.01 * index for index in range(48)],
        },
    ),
    "wan-tiny": ("AutoencoderKLWan", {"base_dim": 8, "z_dim": 16, "num_res_blocks": 1}),
    "hunyuan": (
        "AutoencoderKLHunyuanVideo",
        {"block_out_channels": _FOUR, "layers_per_block": 1, "norm_num_groups": 4},
    ),
    "hunyuan1.5": ("AutoencoderKLHunyuanVideo15", {"block_out_channels": (8, 8, 16, 32, 64), "layers_per_block": 1}),
    "cogvideox": (
        "AutoencoderKLCogVideoX",
        {"block_out_channels": (8, 8, 8, 16), "layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 0.7},
    ),
    "ltx": (
        "AutoencoderKLLTXVideo",
        {
            "block_out_channels": _FOUR,
            "decoder_block_out_channels": (16, 16, 32, 32),
            "layers_per_block": _ONCE,
            "decoder_layers_per_block": _ONCE,
        },
    ),
    "ltx2": (
        "AutoencoderKLLTX2Video",
        {
            "block_out_channels": (8, 16, 32, 64),
            "decoder_block_out_channels": (32, 64, 128),
            "layers_per_block": _ONCE,
            "decoder_layers_per_block": (1, 1, 1, 1),
            "decoder_causal": False,
        },
    ),
    "mochi": (
        "AutoencoderKLMochi",
        {
            "encoder_block_out_channels": (32, 32, 32, 32),
            "decoder_block_out_channels": (32, 32, 32, 32),
            "layers_per_block": _ONCE,
        },
    ),
    "cosmos": (
        "AutoencoderKLCosmos",
        {"encoder_block_out_channels": _FOUR, "decode_block_out_channels": (8, 16, 16, 16), "num_layers": 1},
    ),
    "video-dc-ae": (
        "AutoencoderVideoDC",
        {
            "block_out_channels": (2, 4, 8, 32, 32, 32),
            "encoder_layers_per_block": (1, 1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1, 1),
            "latent_channels": 16,
        },
    ),
}
"""Class and configuration by the name of the teacher; latents as published, but for `OTHER_CHANNELS`."""

SAME_HERE = {"wan-tiny": "wan"}
"""Teachers whose small instance is that of another one."""

EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in SAME_HERE)) for name in sorted(CONFIGS)]
"""All of them in turn, for a fixture or a test."""

IN_PIECES = {"cogvideox", "mochi", "wan", "wan-tiny", "wan2.2"}
"""They decode one or two latent frames at a time."""

OTHER_CHANNELS = {"video-dc-ae": 16}
"""Latent channels where they are not the published ones."""

LTX_TOLD_A_NOISE_LEVEL: dict[str, Any] = {
    "decoder_block_out_channels": (32, 64, 128),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "decoder_inject_noise": (True, True, True, False),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}
"""What LTX-Video 0.9.1 changes of 0.9.0."""

LTX_WITHOUT_NOISE: dict[str, Any] = LTX_TOLD_A_NOISE_LEVEL | {
    "block_out_channels": (8, 16, 32, 64, 128),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "layers_per_block": _ONCE,
    "spatio_temporal_scaling": (True, True, True, True),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "decoder_inject_noise": (False, False, False, False),
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
"""What LTX-Video 0.9.5 changes of 0.9.0."""


def model_class(class_name: str) -> Any:
    """The class of a teacher's model."""
    import_torchvision()
    if class_name == "AutoencoderVideoDC":
        from nas.teachers.architectures.video_dc_ae import AutoencoderVideoDC

        return AutoencoderVideoDC
    import diffusers

    return getattr(diffusers, class_name)


def open_small(name: str, folder: Path, **changes: Any) -> Teacher:
    """A small random teacher, with `changes` of its configuration."""
    return load_teacher(name, make_weights(name, folder / name, **changes))


def open_original(name: str, folder: Path) -> Any:
    """The model in `folder` as its own class loads it, frozen, in evaluation mode."""
    model: Any = model_class(CONFIGS[name][0]).from_pretrained(folder, low_cpu_mem_usage=False)
    return model.eval().requires_grad_(False)


def make_weights(name: str, folder: Path, **changes: Any) -> Path:
    """Random weights of a small instance in `folder`; the same for the same name.

    Weights that begin as zeros or ones (norms, amounts of noise) are random, too, or nobody would miss them.
    """
    class_name, config = CONFIGS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = model_class(class_name)(**{**config, **changes}).eval()
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        for key, value in state.items():
            if value.numel() > 1 and torch.equal(value, value.flatten()[0].expand_as(value)):
                state[key] = value + 0.2 * torch.randn(value.shape)
        for key in ("latents_mean", "latents_std"):
            if key in state:
                state[key] = torch.rand(state[key].shape) + 0.5
    folder.mkdir(parents=True)
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": class_name, **config, **changes}))
    return folder
