"""The table that compares parts: `python -m nas.blocks`."""

import time

import pytest

from blocks import BlockConfig, list_blocks
from nas.blocks import _ratios, main
from nas.testing import CHECKS


def table(text: str, column: str) -> dict[str, list[str]]:
    """Rows of the table with this first column, by their first cell."""
    (lines,) = [part.splitlines() for part in text.split("\n\n") if part.startswith(f"| {column} |")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0]: row[1:] for row in rows}


def test_every_block_and_upsampler_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--width", "8", "--frames", "2", "--size", "4", "--rounds", "1", "--no-core-ml"]) == 0
    text = capsys.readouterr().out
    blocks, upsamplers, rewrites = (table(text, column) for column in ("block", "upsampler", "rewrite"))
    assert {f"`{name}`" for name in list_blocks("block")} == blocks.keys()
    assert {row.split(",")[0] for row in upsamplers} == {f"`{name}`" for name in list_blocks("upsampler")}
    # Two 3x3x3 convolutions with bias on 8 channels, on 2 x 4 x 4 positions.
    assert blocks["`dense_conv3d`"] == ["3,472", "0", "1.00", "1.00"]
    assert upsamplers["`decoupled_pixel_shuffle3d`, pointwise"][0] == "576"
    assert len(rewrites) >= 4


@pytest.mark.timing
def test_a_ratio_is_of_processor_time() -> None:
    """Sleeping costs nothing, work twice as long twice as much."""

    def work(seconds: float) -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    one, two, idle = _ratios([lambda: work(0.02), lambda: work(0.04), lambda: time.sleep(0.05)], 0, 3)
    assert one == 1 and two == pytest.approx(2, rel=0.2) and idle < 0.2


def test_the_contract_of_one_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "conv2d_stem"]) == 0
    lines = [f"conv2d_stem-kernel_size=3{more}: keeps all {len(CHECKS)} promises" for more in ("", ",limited=True")]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_part_that_breaks_it_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def check(config: BlockConfig) -> None:
        raise AssertionError(f"{config.name}: not\nso")

    monkeypatch.setitem(CHECKS, "shape", check)
    assert main(["--check", "conv2d_stem"]) == 2
    assert capsys.readouterr().err == "error: shape: conv2d_stem: not so\n"
    assert main(["--check", "conv2d_sten"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown part 'conv2d_sten': did you mean 'conv2d_stem'? known: ")
