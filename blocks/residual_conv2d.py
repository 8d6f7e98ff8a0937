"""Plain 2-D residual block, frame by frame: what high resolutions can afford.

The upper stages of Flash-VAED (arXiv 2602.19161); activation before convolution is from arXiv 1603.05027.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from blocks.layers.activations import ACTIVATIONS
from blocks.layers.norms import WeightedRmsNorm, norm_after, norm_before
from blocks.registry import Block, BlockConfig, choice, published, register_block
from blocks.time_context import TimeContext


@register_block("residual_conv2d", label="res2d")
class ResidualConv2d(Block):
    """Two k x k convolutions, each after norm and activation, plus the input; `(b t, c, h, w)`, no sense of time."""

    input_layout = output_layout = "frames"

    normed = ("conv1", "norm1"), ("conv2", "norm2")

    @dataclass(frozen=True)
    class Config(BlockConfig):
        """Options."""

        inner: float = choice(1.0, 0.5)
        """Channels between the convolutions, as a share of the output's."""
        norm: str = choice("rms", "batch", "none")
        """RMS norm before, or batch norm after each convolution, or none."""
        activation: str = choice("silu", "relu")
        """Activation in both places."""
        weighted: bool = published(False, True)
        """Whether RMS norms have a weight per channel and the input is added by a 1x1 convolution (Flash-VAED)."""

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = max(1, round(config.inner * out_channels))
        if config.weighted and config.norm != "rms":
            raise ValueError(f"{self.name}: only RMS norms are weighted, got norm={config.norm}")
        self.norm = WeightedRmsNorm(in_channels) if config.weighted else norm_before(config.norm)
        self.inner_norm = WeightedRmsNorm(inner) if config.weighted else None
        self.activation = ACTIVATIONS[config.activation]()
        self.conv1 = nn.Conv2d(in_channels, inner, 3, padding=1)
        self.norm1 = norm_after(config.norm, inner)
        self.conv2 = nn.Conv2d(inner, out_channels, 3, padding=1)
        self.norm2 = norm_after(config.norm, out_channels)
        projects = config.weighted or in_channels != out_channels
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if projects else nn.Identity()

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        """`(b t, in, h, w)` -> `(b t, out, h, w)`."""
        hidden = self.norm1(self.conv1(self.activation(self.norm(x))))
        norm = self.norm if self.inner_norm is None else self.inner_norm
        hidden = self.norm2(self.conv2(self.activation(norm(hidden))))
        out: Tensor = self.skip(x) + hidden
        return out
