"""The critic of an adversarial phase: it learns to tell the student's frames from real ones, the student to deceive it.

Axis letters: b batch, c channels, t frames, h height, w width. The loss is the relativistic one (Jolicoeur-Martineau,
arXiv 1807.00734) with gradient penalties on real and on made frames (R3GAN, arXiv 2501.05441): only the difference of
two scores counts, and a critic that is sure of itself becomes no steeper. Everything is computed in float32.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from nas.distillation.replay import Replay

_WIDTHS = (32, 64, 128)
"""Channels of the layers before the scores."""
_SLOPE = 0.2
"""Of LeakyReLU below 0."""
_PENALTY = 0.01
"""What the gradient penalties count, in units in which the gradient of an L1 distance has size 1 in each pixel.

With a tenth of it a student went astray at an `adversarial_weight` of 0.5 (docs/recipes.md).
"""

CRITIC_BETAS = (0.0, 0.99)
"""Decay of AdamW's averages for the critic: without momentum it does not run around in circles with the student."""


class Critic(nn.Module):
    """Scores of patches of frames, higher for real ones, and the earlier frames of the student that it is shown.

    Strided 3-D convolutions, a score for every 8x8 pixels of four frames. Nothing normalises or mixes samples, so that
    the gradients of smaller batches add up to that of the whole.

    Args:
        replay: earlier frames of the student.
        seed: of the first weights.
    """

    def __init__(self, replay: Replay, seed: int) -> None:
        super().__init__()
        self.replay = replay
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for before, width in pairwise((3, *_WIDTHS)):
                stride = (1 if before == 3 else 2, 2, 2)
                layers += [nn.Conv3d(before, width, (3, 4, 4), stride, padding=1), nn.LeakyReLU(_SLOPE)]
            # A bias would drop out of every difference of scores.
            self.layers = nn.Sequential(*layers, nn.Conv3d(_WIDTHS[-1], 1, 3, padding=1, bias=False))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames `(b, 3, t, h, w)` in [-1, 1], of at least 8x8 pixels -> scores `(b, patches)`."""
        scores: Tensor = self.layers(frames)
        return rearrange(scores, "b 1 t h w -> b (t h w)")

    def student_loss(self, frames: Tensor, real: Tensor) -> Tensor:
        """What the student is punished for: that its frames have lower scores than the real ones; a scalar.

        The gradient goes to the student alone.

        Args:
            frames: of the student.
            real: what they should be, likewise `(b, 3, t, h, w)`.
        """
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        with torch.no_grad():
            wanted = self(real.float())
        found: Tensor = functional_call(self, frozen, (frames.float(),))
        return functional.softplus(wanted - found).mean()

    def own_loss(self, frames: Tensor, real: Tensor, step: int, places: Sequence[int]) -> Tensor:
        """What the critic is punished for: higher scores for the student's frames than for real ones; a scalar.

        Some of the frames are earlier ones, from the replay, which is told of the new ones. The gradient goes to the
        critic alone.

        Args:
            frames, real: as in `student_loss`.
            step: steps done before this one.
            places: of these samples in the batch of the step.
        """
        shown = self.replay.mix(frames.detach().float(), step, places)
        self.replay.keep(frames.detach(), step, places)
        both = torch.cat([real.float(), shown]).requires_grad_()
        scores = self(both)
        (slopes,) = torch.autograd.grad(scores.mean(dim=1).sum(), both, create_graph=True)
        # Of each sample the gradient of its mean score, times the pixels that it is spread over.
        penalty = slopes.square().sum(dim=(1, 2, 3, 4)) * slopes[0].numel()
        real_scores, made_scores = scores.chunk(2)
        return functional.softplus(made_scores - real_scores).mean() + _PENALTY * penalty.mean()
