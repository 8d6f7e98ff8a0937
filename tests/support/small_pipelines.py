"""Small random instances of diffusers' own video pipelines, from embeddings of a prompt to frames."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nas.machine.torchvision_operators import import_torchvision
from search_spaces import PRESETS, DecoderConfig, LatentSpec, adapt
from tests.support.small_teachers import CONFIGS

import_torchvision()

import diffusers  # noqa: E402

_LTX_STATISTICS = {"latents_mean": torch.linspace(-1, 1, 128), "latents_std": torch.linspace(0.5, 2, 128)}

SPECS = {
    "wan": lambda vae: LatentSpec(16, 8, 4, mean=tuple(vae.config.latents_mean), std=tuple(vae.config.latents_std)),
    "hunyuan": lambda vae: LatentSpec(16, 8, 4, std=(1 / vae.config.scaling_factor,) * 16),
    "cogvideox": lambda vae: LatentSpec(16, 8, 4, "leading_if_odd", std=(1 / vae.config.scaling_factor,) * 16),
    "ltx": lambda vae: LatentSpec(
        128, 32, 8, mean=tuple(vae.latents_mean.tolist()), std=tuple(vae.latents_std.tolist()), causal=False
    ),
}
"""Teacher -> the latents of its VAE, with the statistics that a search would have found."""

PIPELINES = {
    "WanPipeline": "wan",
    "WanImageToVideoPipeline": "wan",
    "WanVideoToVideoPipeline": "wan",
    "HunyuanVideoPipeline": "hunyuan",
    "HunyuanVideoImageToVideoPipeline": "hunyuan",
    "CogVideoXPipeline": "cogvideox",
    "CogVideoXImageToVideoPipeline": "cogvideox",
    "CogVideoXVideoToVideoPipeline": "cogvideox",
    "LTXPipeline": "ltx",
    "LTXImageToVideoPipeline": "ltx",
    "LTXConditionPipeline": "ltx",
}
"""Pipeline -> the teacher whose VAE it has."""

WITH_IMAGE = {name for name in PIPELINES if "ImageToVideo" in name}
WITH_VIDEO = {name for name in PIPELINES if "VideoToVideo" in name}


def make_vae(teacher: str) -> Any:
    """A random VAE of the teacher's class."""
    class_name, config = CONFIGS[teacher]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = getattr(diffusers, class_name)(**config).eval()
    if teacher == "ltx":
        for name, values in _LTX_STATISTICS.items():
            getattr(vae, name).copy_(values)
    return vae


def student_config(teacher: str, vae: Any) -> DecoderConfig:
    """A small student for the latents of a VAE."""
    return adapt(PRESETS["taehv_wan"], SPECS[teacher](vae), 16)


def make_pipeline(name: str, vae: Any) -> Any:
    """The pipeline around a VAE; nothing in it that would turn words into embeddings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        parts = _PARTS[PIPELINES[name]](name)
    pipe = getattr(diffusers, name)(vae=vae, tokenizer=None, text_encoder=None, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run_pipeline(name: str, pipe: Any, batch: int = 1, **options: Any) -> Any:
    """What two steps of the pipeline make of random embeddings, `(b, t, 3, h, w)` in [0, 1]."""
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(batch, 4, 16, generator=generator)
    size = {"height": 64, "width": 64}
    arguments: dict[str, Any] = {"prompt_embeds": embeddings, "negative_prompt_embeds": -embeddings}
    if PIPELINES[name] == "hunyuan":
        pooled, mask = torch.randn(batch, 8, generator=generator), torch.ones(batch, 4)
        arguments = {"prompt_embeds": embeddings, "pooled_prompt_embeds": pooled, "prompt_attention_mask": mask}
    if PIPELINES[name] == "ltx":
        masks = ("prompt_attention_mask", "negative_prompt_attention_mask")
        arguments |= {mask: torch.ones(batch, 4) for mask in masks}
    if name in WITH_IMAGE:
        arguments["image"] = torch.rand(batch, 3, 64, 64, generator=generator)
    if name in WITH_VIDEO:
        arguments["video"] = list(torch.rand(9, 64, 64, 3, generator=generator).numpy())
    else:
        arguments["num_frames"] = 9
    arguments |= size | {"num_inference_steps": 2, "generator": generator, "output_type": "pt"}
    return pipe(**(arguments | options)).frames


def decoded_by(pipe: Any, run: Callable[[], Any]) -> tuple[Any, Tensor]:
    """What `run` gives, and the latents that the pipeline handed to its VAE meanwhile."""
    seen: list[Tensor] = []
    vae, decode = pipe.vae, pipe.vae.decode

    def record(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(z)
        return decode(z, *args, **kwargs)

    vae.decode = record
    try:
        found = run()
    finally:
        del vae.decode
    (latents,) = seen
    return found, latents


def _wan(name: str) -> dict[str, Any]:
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=36 if name == "WanImageToVideoPipeline" else 16,
        text_dim=16,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
    )
    return {"transformer": transformer, "scheduler": diffusers.UniPCMultistepScheduler(flow_shift=3.0)}


def _hunyuan(name: str) -> dict[str, Any]:
    to_continue = name == "HunyuanVideoImageToVideoPipeline"
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        image_condition_type="token_replace" if to_continue else None,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    parts = {"transformer": transformer, "scheduler": scheduler, "text_encoder_2": None, "tokenizer_2": None}
    return parts | ({"image_processor": None} if to_continue else {})


def _cogvideox(name: str) -> dict[str, Any]:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=32 if name == "CogVideoXImageToVideoPipeline" else 16,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=4,
        use_rotary_positional_embeddings=True,
    )
    return {"transformer": transformer, "scheduler": diffusers.CogVideoXDDIMScheduler()}


def _ltx(name: str) -> dict[str, Any]:
    transformer = diffusers.LTXVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, num_layers=1, caption_channels=16
    )
    return {"transformer": transformer, "scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}


_PARTS = {"wan": _wan, "hunyuan": _hunyuan, "cogvideox": _cogvideox, "ltx": _ltx}
