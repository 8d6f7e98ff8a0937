"""Train the embedded teacher `wan-tiny`, a small AutoencoderKLWan with the latent geometry of Wan 2.1.

python scripts/train_wan_tiny.py --clips CLIPS [CLIPS ...] --heldout HELDOUT --out FOLDER [--init FOLDER]

Without --init it starts from nothing: encoder and decoder are first trained towards the linear code of the same size
(the 16 principal components of 4x8x8 patches), then jointly. With --init it goes on from given weights, jointly.
The joint phase sees 17 frames and now and then 33: a causal VAE that has only seen short clips drifts on longer ones.
The same command resumes from `FOLDER/checkpoint.pt`; usable weights are written at every evaluation.

Training runs each clip in one shot (`in_one_shot`), which gives what the class gives frame by frame and is several
times faster; what is reported at the end is measured through the class itself.
"""

import argparse
import copy
import json
import time
import types
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from nas.machine.torchvision_operators import import_torchvision
from nas.metrics import VIDEO_RANGE, psnr_per_frame

import_torchvision()

from diffusers import AutoencoderKLWan  # noqa: E402

CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
}
EMA_DECAY = 0.998


def main() -> None:
    """Parse the arguments, train, evaluate, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="folders of training clips")
    parser.add_argument("--heldout", type=Path, required=True, help="folder of clips that are only measured on")
    parser.add_argument("--out", type=Path, required=True, help="where weights and the checkpoint go")
    parser.add_argument("--init", type=Path, help="folder of weights to start from")
    parser.add_argument("--code-steps", type=int, default=3500, help="steps towards the linear code (without --init)")
    parser.add_argument("--steps", type=int, default=6000, help="steps of the joint phase")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--evaluate-every", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    clips = [clip for folder in arguments.clips for clip in read_folder(folder)]
    heldout = read_folder(arguments.heldout)
    components, mean = fit_linear_code(clips, np.random.default_rng(arguments.seed))
    print("linear code   ", format_quality(measure(lambda video: linear_code(video, components, mean), heldout, 17)))
    # The weights on disk are in half precision.
    vae = AutoencoderKLWan.from_pretrained(arguments.init).float() if arguments.init else AutoencoderKLWan(**CONFIG)
    in_one_shot(vae)
    if not arguments.init and not (arguments.out / "checkpoint.pt").exists():
        train_towards_code(vae, clips, components, mean, arguments)
    train_jointly(vae, clips, heldout, arguments)


def read_folder(folder: Path) -> list[np.ndarray]:
    """All clips of a folder as uint8 `(t, h, w, 3)`."""
    clips = []
    for path in sorted(folder.glob("*.mp4")):
        with av.open(str(path)) as container:
            clips.append(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    return clips


def to_video(frames: np.ndarray) -> Tensor:
    """uint8 `(t, h, w, 3)` -> `(1, 3, t, h, w)` in [-1, 1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> 1 c t h w").float() / 127.5 - 1


def sample(clips: list[np.ndarray], batch: int, frames: int, crop: int, random: np.random.Generator) -> Tensor:
    """Random crops `(batch, 3, frames, crop, crop)`, some mirrored, some played backwards."""
    crops = []
    long_enough = [clip for clip in clips if len(clip) >= frames]
    for _ in range(batch):
        clip = long_enough[random.integers(len(long_enough))]
        t, y, x = (
            random.integers(size - part + 1) for size, part in zip(clip.shape, (frames, crop, crop), strict=False)
        )
        video = to_video(clip[t : t + frames, y : y + crop, x : x + crop])
        video = video.flip(4) if random.random() < 0.5 else video
        crops.append(video.flip(2) if random.random() < 0.5 else video)
    return torch.cat(crops).contiguous(memory_format=torch.channels_last_3d)


def to_patches(video: Tensor) -> Tensor:
    """4x8x8 patches of `(b, 3, 1 + 4n, h, w)`, the first frame four times: `(b, 1 + n, h/8, w/8, 768)`."""
    video = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], dim=2)
    return rearrange(video, "b c (t p) (h q) (w r) -> b t h w (c p q r)", p=4, q=8, r=8)


def fit_linear_code(clips: list[np.ndarray], random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The 16 principal components `(768, 16)` of patches and their mean `(768,)`."""
    patches = torch.cat([to_patches(sample(clips, 1, 17, 64, random))[:, 1:].reshape(-1, 768) for _ in range(600)])
    mean = patches.mean(dim=0)
    _, _, components = torch.pca_lowrank(patches - mean, q=32, center=False, niter=4)
    return components[:, :16], mean


def linear_code(video: Tensor, components: Tensor, mean: Tensor) -> Tensor:
    """`(b, 3, 1 + 4n, h, w)` through the linear code and back."""
    patches = (to_patches(video) - mean) @ components @ components.T + mean
    return rearrange(patches, "b t h w (c p q r) -> b c (t p) (h q) (w r)", p=4, q=8, r=8, c=3)[:, :, 3:].clamp(-1, 1)


def in_one_shot(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Make `encode_clip` and `decode_clip` valid for this model (and its own `encode` and `decode` invalid).

    Without caches the class skips the convolutions in time of its resampling; here they run over the whole clip, the
    first frame aside, as they do chunk by chunk.
    """
    for module in vae.modules():
        if type(module).__name__ == "WanResample":
            module.forward = types.MethodType(_resample_clip, module)
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


def _resample_clip(module: Any, x: Tensor, feat_cache: None = None, feat_idx: Any = None) -> Tensor:
    """`WanResample.forward` for all frames `(b, c, t, h, w)` of a clip."""
    batch = x.shape[0]
    if module.mode == "upsample3d":
        later = rearrange(module.time_conv(x[:, :, 1:]), "b (s c) t h w -> b c (t s) h w", s=2)
        x = torch.cat([x[:, :, :1], later], dim=2)
    frames = module.resample(rearrange(x, "b c t h w -> (b t) c h w"))
    x = rearrange(frames, "(b t) c h w -> b c t h w", b=batch)
    if module.mode == "downsample3d":
        x = torch.cat([x[:, :, :1], module.time_conv(x)], dim=2)
    return x


def encode_clip(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """The mode of the latents, by a model that went through `in_one_shot`."""
    mean: Tensor = vae.quant_conv(vae.encoder(video)).chunk(2, dim=1)[0]
    return mean


def decode_clip(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Frames, not clamped, by a model that went through `in_one_shot`."""
    frames: Tensor = vae.decoder(vae.post_quant_conv(latents))
    return frames


def fast() -> torch.autocast:
    """Convolutions in bfloat16, everything else as it is."""
    return torch.autocast("cpu", torch.bfloat16)


def loss_between(prediction: Tensor, target: Tensor) -> Tensor:
    """L1, squared error, and L1 of the differences between neighbours in time, height and width."""
    loss = functional.l1_loss(prediction, target) + 10 * functional.mse_loss(prediction, target)
    gradients = (functional.l1_loss(prediction.diff(dim=axis), target.diff(dim=axis)) for axis in (2, 3, 4))
    return loss + 0.2 * torch.stack(list(gradients)).sum()


def train_towards_code(
    vae: AutoencoderKLWan, clips: list[np.ndarray], components: Tensor, mean: Tensor, arguments: argparse.Namespace
) -> None:
    """Encoder: video -> linear code; decoder: linear code -> video. Independent of each other, on short clips."""
    random = np.random.default_rng(arguments.seed + 1)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.code_steps, eta_min=1e-4)
    for step in range(arguments.code_steps):
        video = sample(clips, 4 * arguments.batch, 5, 48, random)
        code = rearrange((to_patches(video) - mean) @ components, "b t h w c -> b c t h w")
        with fast():
            latents, frames = encode_clip(vae, video), decode_clip(vae, code)
        loss = functional.mse_loss(latents.float(), code) + loss_between(frames.float(), video)
        update(vae, optimizer, loss)
        schedule.step()
        if step % 100 == 0:
            print(f"code {step} loss {loss.item():.4f}", flush=True)


def train_jointly(
    vae: AutoencoderKLWan, clips: list[np.ndarray], heldout: list[np.ndarray], arguments: argparse.Namespace
) -> None:
    """Encoder and decoder together; 33 frames in every eighth step, on half the area."""
    ema = copy.deepcopy(vae).requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=arguments.learning_rate, betas=(0.9, 0.99))
    checkpoint = arguments.out / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(saved["vae"])
        ema.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    started = time.monotonic()
    for step in range(first, arguments.steps + 1):
        if step % arguments.evaluate_every == 0 or step == arguments.steps:
            quality = measure(lambda video: reconstruct_clip(ema, video), heldout, 17)
            print(f"step {step} {time.monotonic() - started:.0f} s  {format_quality(quality)}", flush=True)
            export(ema, clips, arguments, step, quality)
            state = {
                "vae": vae.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        if step == arguments.steps:
            break
        for group in optimizer.param_groups:
            decayed = 0.5 * (1 + np.cos(np.pi * step / arguments.steps))
            group["lr"] = float(arguments.learning_rate * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * decayed))
        random = np.random.default_rng((arguments.seed + 2, step))
        long = step % 8 == 7
        video = sample(clips, arguments.batch, 33 if long else 17, 48 if long else arguments.crop, random)
        with fast():
            frames = decode_clip(vae, encode_clip(vae, video))
        update(vae, optimizer, loss_between(frames.float(), video))
        with torch.no_grad():
            for average, parameter in zip(ema.parameters(), vae.parameters(), strict=True):
                average.lerp_(parameter, 1 - min(EMA_DECAY, (step + 1) / (step + 10)))
    finished = AutoencoderKLWan.from_pretrained(arguments.out / "wan_tiny").float()
    for count in (17, 33):
        quality = measure(lambda video: reconstruct(finished, video), heldout, count)
        print(f"as written, {count} frames: {format_quality(quality)}", flush=True)


def update(vae: AutoencoderKLWan, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def reconstruct_clip(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Encode (mode) and decode in one shot, in bfloat16."""
    with fast():
        return decode_clip(vae, encode_clip(vae, video)).float().clamp(-1, 1)


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Encode (mode) and decode."""
    reconstruction: Tensor = vae.decode(vae.encode(video).latent_dist.mode()).sample
    return reconstruction


def measure(reconstruction: Any, heldout: list[np.ndarray], frames: int) -> dict[str, float]:
    """PSNR in dB on 128x128 centre crops, mean over clips: all frames, the first, the last four."""
    per_clip = []
    for clip in heldout:
        if len(clip) < frames:
            continue
        y, x = (clip.shape[1] - 128) // 2, (clip.shape[2] - 128) // 2
        video = to_video(clip[:frames, y : y + 128, x : x + 128])
        decibels = psnr_per_frame(reconstruction(video), video, VIDEO_RANGE)[0]
        per_clip.append(torch.stack([decibels.mean(), decibels[0], decibels[-4:].mean()]))
    mean = torch.stack(per_clip).mean(dim=0)
    return dict(zip(("all", "first", "last_four"), mean.tolist(), strict=True))


def format_quality(quality: dict[str, float]) -> str:
    """One line."""
    return f"heldout {quality['all']:.2f} dB (first {quality['first']:.2f}, last four {quality['last_four']:.2f})"


@torch.no_grad()
def export(
    ema: AutoencoderKLWan, clips: list[np.ndarray], arguments: argparse.Namespace, step: int, quality: dict[str, float]
) -> None:
    """Write half-precision weights with measured statistics of the latents, and what was reached."""
    random = np.random.default_rng(arguments.seed + 3)
    videos = [sample(clips, 1, 17, 128, random) for _ in range(24)]
    latents = torch.cat([rearrange(encode_clip(ema, video), "b c t h w -> (b t h w) c") for video in videos])
    ema.register_to_config(
        latents_mean=[round(value, 4) for value in latents.mean(dim=0).tolist()],
        latents_std=[round(value, 4) for value in latents.std(dim=0).tolist()],
    )
    folder = arguments.out / "wan_tiny"
    weights = AutoencoderKLWan.from_config(ema.config)
    weights.load_state_dict(ema.state_dict())
    weights.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    # The path that the first weights were read from is nobody's business.
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    reached = {"seed": arguments.seed, "steps": step, "of": arguments.steps, "psnr_heldout_db": quality}
    (folder / "training.json").write_text(json.dumps(reached, indent=2) + "\n")


if __name__ == "__main__":
    main()
