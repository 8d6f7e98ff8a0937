"""Measurements that are not begun because they cannot end well, and what an interrupted command says of itself."""

from pathlib import Path

import pytest
import torch

from nas.latency import MeasurementFailedError, Workload, open_device
from nas.latency.__main__ import main
from nas.latency.measurement.worker import measure_host
from nas.terminal.parser import run_command
from search_spaces import PRESETS, Decoder, adapt
from tests.support.agents import config_json

COG = PRESETS["turbo_vaed_cog"]
CPU = torch.device("cpu")


def test_a_decode_that_needs_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.latency.measurement.host_memory.memory_limit", lambda device: 10**8)
    large = adapt(COG, COG.latents, 2)
    with torch.device("meta"):
        decoder = Decoder(large)
    host = open_device("host")
    with pytest.raises(
        MeasurementFailedError, match=r"512x512 x 17 frames needs about .* GB of memory, there are 0\.1"
    ):
        host.latency(decoder, large.latents, Workload(512, 512, 17))


@pytest.mark.slow
def test_an_agent_does_not_begin_a_decode_that_needs_more_memory_than_there_is() -> None:
    with pytest.raises(MeasurementFailedError, match="GB of memory, there are"):
        measure_host(config_json(COG), Workload(4096, 4096, 257), CPU, 200)


@pytest.mark.parametrize(
    ("continue_with", "words"), [("the command", "is saved; to continue: the command"), (None, "it was not done")]
)
def test_an_interruption_says_what_is_kept(
    continue_with: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_command(interrupted, continue_with) == 130
    error = capsys.readouterr().err
    assert words in error and ("saved" in error) == (continue_with is not None)


def test_sizes_for_which_no_decoder_can_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.latency.calibration_design._MOST_DRAWS", 5)
    out = tmp_path / "x.json"
    assert main(["calibrate", "--gmacs", "1000000000", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: none of 5 random decoders") and "(the nearest has" in error
    assert not out.exists()
    assert main(["calibrate", "--held-out", "1", "--out", str(out)]) == 2
    assert "--held-out has to be at least 2 decoders" in capsys.readouterr().err
