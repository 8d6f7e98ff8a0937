"""What the teacher gives for one crop, and how many bytes that is."""

import torch
from torch import Tensor

from nas.data.crops import Crop
from nas.data.limits import without_memory
from nas.data.settings import TargetSettings
from nas.machine.batches import out_of_memory_as
from nas.teachers import Teacher


def targets_of(teacher: Teacher, crop: Crop, settings: TargetSettings) -> dict[str, Tensor]:
    """Everything that is kept of a crop, by name, on the CPU, each with the axis of the batch.

    Raises:
        UserError: memory runs out.
    """
    with out_of_memory_as(without_memory(teacher, settings.num_frames, settings.crop)):
        latents = _latents_of(teacher, crop)
        tensors = {"latents": latents}
        if crop.video is not None:
            tensors["truth"] = ((crop.video + 1) * 127.5).round().byte()
        if settings.frames:
            frames, features = teacher.decode_with_features(latents, settings.taps)
            tensors["frames"] = frames.half()
        else:
            features = teacher.features(latents, settings.taps)
        tensors |= {f"feature.{name}": feature.half() for name, feature in features.items()}
        return {name: tensor.cpu() for name, tensor in tensors.items()}


def _latents_of(teacher: Teacher, crop: Crop) -> Tensor:
    if crop.latents is not None:
        return crop.latents
    assert crop.video is not None
    noise = None if crop.noise_seed is None else torch.Generator().manual_seed(crop.noise_seed)
    return teacher.encode(crop.video, noise)


def bytes_per_crop(teacher: Teacher, settings: TargetSettings) -> int:
    """Bytes that one crop of a video takes on disk; one of latents takes no more."""
    channels, frames, height, width = teacher.spec.latent_shape(settings.num_frames, settings.crop, settings.crop)
    pixels = 3 * settings.num_frames * settings.crop**2
    total = 4 * channels * frames * height * width + pixels + 2 * pixels * settings.frames
    for name in settings.taps:
        tap = teacher.taps[name]
        total += 2 * tap.channels * tap.temporal * frames * tap.spatial**2 * height * width
    return total
