"""Parts of somebody else that are not there at every width, or do not run at every size, as a plugin."""

from pathlib import Path

MODULE = "my_groups"

_SOURCE = '''"""A grouped convolution."""

from dataclasses import dataclass

from torch import Tensor, nn

from blocks import Block, BlockConfig, TimeContext, choice, register_block
from search_spaces import SearchSpace, register_space
from search_spaces.space import Level


@register_block("grouped_conv2d", label="grp2d")
class GroupedConv2d(Block):
    """Residual grouped convolution on every frame."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        groups: int = choice(8)

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, groups={groups})
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        {check}
        return self.skip(x) + self.conv(x)


SPACE = SearchSpace(
    name="groups",
    description="grouped convolutions at every resolution",
    stems=("conv2d_stem",),
    levels=(Level(("grouped_conv2d",), widths={widths}, depths=(1,)),),
    upsamplers=("nearest_conv2d",),
    heads=("pixel_shuffle_head",),
    plain_heads=("pixel_shuffle_head",),
)
register_space(SPACE, __name__)
'''


def write_plugin(
    folder: Path, *, widths: tuple[int, ...] = (12, 36, 64), groups: str = "config.groups", check: str = ""
) -> str:
    """The plugin in `folder`; returns its name. `check` is a statement in the block's `forward`."""
    source = _SOURCE.format(widths=widths, groups=groups, check=check or "x = x + 0")
    (folder / f"{MODULE}.py").write_text(source)
    return MODULE
