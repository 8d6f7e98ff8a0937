"""Small instances of every teacher's real class with random weights, saved as diffusers saves them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from nas.torchvision_operators import import_torchvision

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
    "hunyuan1.5": ("AutoencoderKLHunyuanVideo15", {"block_out_channels": (8, 8, 16, 32, 32), "layers_per_block": 1}),
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
            "block_out_channels": (32, 32, 32, 32, 64, 64),
            "encoder_layers_per_block": (1, 1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1, 1),
            "latent_channels": 32,
        },
    ),
}
"""Class and configuration by the name of the teacher; latents as published, but for Video DC-AE's channels."""


def model_class(class_name: str) -> Any:
    """The class of a teacher's model."""
    import_torchvision()
    if class_name == "AutoencoderVideoDC":
        from nas.teachers.architectures.video_dc_ae import AutoencoderVideoDC

        return AutoencoderVideoDC
    import diffusers

    return getattr(diffusers, class_name)


def make_weights(name: str, folder: Path, **changes: Any) -> Path:
    """Random weights of a small instance in `folder`; the same for the same name."""
    class_name, config = CONFIGS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = model_class(class_name)(**{**config, **changes}).eval()
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        for key in ("latents_mean", "latents_std"):
            if key in state:
                state[key] = torch.rand(state[key].shape) + 0.5
    folder.mkdir(parents=True)
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": class_name, **config, **changes}))
    return folder
