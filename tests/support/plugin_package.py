"""A package of somebody else with a block and a search space of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks.registry import _REGISTRY
from nas.machine import plugins
from nas.machine.plugins import PLUGINS_VARIABLE
from search_spaces import SEARCH_SPACES

MODULE = "my_lab.decoders"

_SOURCE = '''"""A block and a space."""

from dataclasses import dataclass

from torch import Tensor, nn

from blocks import Block, BlockConfig, TimeContext, choice, register_block
from search_spaces import SearchSpace, register_space
from search_spaces.space import Level


@register_block("gated_conv2d", label="gate2d")
class GatedConv2d(Block):
    """Residual gated convolution on every frame."""

    input_layout = output_layout = "frames"

    @dataclass(frozen=True)
    class Config(BlockConfig):
        kernel_size: int = choice(3, 5)

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        padding = config.kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, config.kernel_size, padding=padding)
        self.gate = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        return self.conv(x) * self.gate(x).sigmoid()


SPACE = SearchSpace(
    name="my_lab",
    description="gated convolutions at every resolution",
    stems=("conv2d_stem",),
    levels=(Level(("gated_conv2d",), widths=(8, 16), depths=(1, 2)),),
    upsamplers=("nearest_conv2d",),
    heads=("pixel_shuffle_head",),
    plain_heads=("conv3d_head",),
)
register_space(SPACE, __name__)
'''


def write_package(folder: Path, *, installed: bool) -> None:
    """The package `my_lab` in `folder`; as pip installs it (with its entry point) or as a mere folder."""
    package = folder / "my_lab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "decoders.py").write_text(_SOURCE)
    if installed:
        metadata = folder / "my_lab-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[turbo_vaed_nas.plugins]\ndecoders = {MODULE}\n")


@contextmanager
def forgotten_afterwards(folder: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is searched for plugins; what `package` registers is forgotten at the end."""
    blocks, spaces = dict(_REGISTRY), dict(SEARCH_SPACES)
    monkeypatch.setattr(plugins, "_loaded", [])
    monkeypatch.setenv(PLUGINS_VARIABLE, "")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for kept, registry in ((blocks, _REGISTRY), (spaces, SEARCH_SPACES)):
        registry.clear()
        registry.update(kept)  # type: ignore[arg-type]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]
