"""What causal means for a teacher, over all of them: small instances of the real classes with random weights."""

import torch
from torch import Tensor, nn

from nas.teachers import Teacher
from tests.support.small_teachers import random_latents

NORMS_OVER_TIME = {"cogvideox", "hunyuan"}
"""Their convolutions and attention look back only, but their group norms take in a whole piece or the whole clip."""


def without_statistics(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """What a group norm would put out if its input had mean 0 and standard deviation 1."""
    weight, bias = (getattr(norm, name).view(-1, *[1] * (output.ndim - 2)) for name in ("weight", "bias"))
    result: Tensor = inputs[0] * weight + bias
    return result


def test_causal_teachers_look_back_only(teacher: Teacher) -> None:
    """Causal is what convolutions and attention see: statistics of norms over time are held still.

    The last latent frames change; the frames before them do not where the spec says causal, and do where it does not.
    """
    norms = [each for each in teacher.model.modules() if isinstance(each, nn.GroupNorm)]
    held = norms if teacher.name in NORMS_OVER_TIME else []
    for num_latents, changed in ((4, 3), (5, 4)):
        latents = random_latents(teacher.spec, num_latents)
        other = torch.cat([latents[:, :, :changed], latents[:, :, changed:].flip(1)], dim=2)
        before = teacher.spec.num_frames(num_latents) - (num_latents - changed) * teacher.spec.temporal
        handles = [norm.register_forward_hook(without_statistics) for norm in held]
        difference = (teacher.decode(latents) - teacher.decode(other)).abs()
        for handle in handles:
            handle.remove()
        assert float(difference[:, :, before:].max()) > 5e-3
        still = float(difference[:, :, :before].max())
        assert still < 1e-4 if teacher.spec.causal else still > 1e-2, (num_latents, changed)


def test_the_first_latents_alone_give_the_first_frames(teacher: Teacher) -> None:
    """Where the teacher is causal and no norm takes in the clip; by CogVideoX's rule, of clips of equal parity."""
    whole = teacher.decode(random_latents(teacher.spec, 6))
    parity = 2 if teacher.spec.frame_rule == "leading_if_odd" else 1
    for count in range(max(parity, teacher.least_latents), 6, parity):
        part = teacher.decode(random_latents(teacher.spec, 6)[:, :, :count])
        difference = float((part - whole[:, :, : part.shape[2]]).abs().max())
        same = teacher.spec.causal and teacher.name != "hunyuan"
        assert difference < 1e-4 if same else difference > 1e-2, count
