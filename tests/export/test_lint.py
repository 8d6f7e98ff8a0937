"""What cannot ship is found before it is trained, quickly, and remembered."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

import blocks
from blocks import BlockConfig, get_block
from blocks.registry import _REGISTRY
from nas.core_ml import part_reports
from nas.export.lint import lint
from nas.latency import Workload
from search_spaces import PRESETS, Decoder, DecoderConfig, LatentSpec, StageConfig, adapt, build_skeleton

PART = '''"""A part that somebody wrote."""
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from blocks.registry import Block, BlockConfig, choice, register_block
from blocks.time_context import TimeContext

@register_block("dropped_in", label="dropped")
class DroppedIn(Block):
    @dataclass(frozen=True)
    class Config(BlockConfig):
        kernel_size: int = choice(3)

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, in_channels)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        return BODY
'''

FAULTS = {
    "self.conv(torch.stack([x, 2 * x], dim=2).sum(dim=2))": "tensors of more than 5 axes in stack",
    "self.conv(self.norm(x))": "tensors of more than 5 axes in add,",
    "functional.interpolate(functional.avg_pool3d(self.conv(x), (1, 2, 2)), scale_factor=(1.0, 2.0, 2.0))": "nearest3d",
    "self.conv(torch.cumsum(x, dim=2))": "operations that cannot be proven: cumsum",
    "self.conv(x if x.mean() > 0 else -x)": "cannot be traced without data",
}
"""What a part returns, and what is found about it."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and no memory of earlier tests."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / "parts"
    forget()


def forget() -> None:
    """What this process remembers, as a new one does not."""
    part_reports._KNOWN.clear()
    part_reports._sources.cache_clear()


def tiny(block: BlockConfig) -> DecoderConfig:
    """One block between a stem and a head."""
    latents = LatentSpec(channels=4, spatial=2, temporal=1)
    stage = StageConfig(width=16, depth=1, block=block)
    stem, head = (get_block(name).Config() for name in ("conv3d_stem", "pixel_shuffle_head"))
    return DecoderConfig(latents=latents, stem=stem, stages=(stage,), head=head)


@pytest.mark.parametrize(
    "body",
    [body if number in (0, 2) else pytest.param(body, marks=pytest.mark.slow) for number, body in enumerate(FAULTS)],
)
def test_a_part_that_cannot_ship_is_named(body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict(_REGISTRY)
    monkeypatch.setattr(blocks, "__path__", [*blocks.__path__, str(tmp_path)])
    (tmp_path / "dropped_in.py").write_text(PART.replace("BODY", body))
    importlib.invalidate_caches()
    try:
        part = importlib.import_module("blocks.dropped_in").DroppedIn
        with torch.device("meta"):  # not run on it, as a skeleton is: nothing that branches on data gets through that
            decoder = Decoder(tiny(part.Config()))
        report = lint(decoder, Workload(8, 8, 3))
    finally:
        _REGISTRY.clear()
        _REGISTRY.update(kept)
        sys.modules.pop("blocks.dropped_in", None)
        vars(blocks).pop("dropped_in", None)
    (problem,) = report.problems
    assert not report.ships
    assert problem.startswith("stage0: dropped_in: ") and FAULTS[body] in problem


def test_a_published_design_ships_and_is_remembered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = adapt(PRESETS["turbo_vaed_cog"], LatentSpec(channels=16, spatial=8, temporal=4), 4)
    config = replace(config, shortcut=get_block("linear_shortcut").Config())
    report = lint(build_skeleton(config), Workload(512, 512, 17))
    assert report.ships
    assert report.moves.keys() == {"stem", "stage0", "stage1", "stage2", "stage3", "head", "shortcut"}
    # The decoupled shuffle moves channels to time; the stage's blocks then want video again.
    assert report.moves["stage0"] == (0, 0) and report.moves["stage1"][0] >= 2
    files = {file.name: file.stat().st_mtime_ns for file in cache.rglob("*.json")}
    forget()
    monkeypatch.setattr(part_reports, "to_mil", lambda *_, **__: pytest.fail("converted again"))
    assert lint(build_skeleton(config), Workload(512, 512, 17)) == report
    assert {file.name: file.stat().st_mtime_ns for file in cache.rglob("*.json")} == files


def test_a_changed_source_is_inspected_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, size = build_skeleton(tiny(get_block("memory_conv2d").Config())), Workload(8, 8, 3)
    lint(decoder, size)
    before = len(list(cache.rglob("*.json")))
    part_reports._KNOWN.clear()
    monkeypatch.setattr(part_reports, "_sources", lru_cache(lambda package: "another version"))
    lint(decoder, size)
    assert len(list(cache.rglob("*.json"))) == 2 * before


def test_tensors_beyond_the_neural_engine_are_a_warning() -> None:
    report = lint(build_skeleton(tiny(get_block("memory_conv2d").Config())), Workload(8, 2 * 16386, 3))
    assert report.ships
    assert any("(3, 16, 4, 16386)" in warning for warning in report.warnings), report.warnings
