"""`python -m nas.export`: what it may write over, what it proves with, and what a kill leaves."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.data.shards import write_shard
from nas.export.__main__ import main
from nas.machine.temporary import PREFIX
from nas.model import TurboVAED
from nas.model.folder import read_record, write_model_folder
from tests.support.exported_decoders import small_config
from tests.support.records import latency, make_record

ROOT = Path(__file__).parents[2]
SIZE = ("--resolution", "16x24", "--frames", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a model that was timed with 5 frames at 16x24."""
    torch.manual_seed(0)
    model = TurboVAED(architecture=small_config().to_dict(), teacher="wan-tiny")
    timed = replace(latency(100.0, "measured"), height=16, width=24, num_frames=5)
    record = make_record(architecture=model.decoder.config.digest(), latency_measured=timed)
    write_model_folder(tmp_path / "model", model, record)
    return tmp_path / "model"


def run(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


@pytest.mark.slow
def test_another_size_is_another_package_proven_on_real_latents(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package of the timed size has the plain name; a second one of a size says that it replaces the first."""
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    record = read_record(folder)
    assert record is not None
    clip = {"latents": torch.full((2, 16, 2, 2, 3), 3.0)}
    write_shard(tmp_path / "cache" / "targets" / record.unseen / "test-000.safetensors", clip)
    status, out, err = run(folder, "--resolution", "16x24", "--frames", "5")
    assert (status, err) == (0, "") and "in place of" not in out
    before = {path: path.stat().st_mtime_ns for path in (folder / "decoder.mlpackage").rglob("*")}
    assert [run(folder, *SIZE)[0], run(folder, *SIZE)[1].count("in place of the one before")] == [0, 1]
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "decoder.mlpackage").rglob("*")}
    record = read_record(folder)
    assert record is not None and record.packages.keys() == {"decoder.mlpackage", "decoder_16x24x1.mlpackage"}
    for package in record.packages.values():
        draws = package.report["proofs"]["main"]["psnr_draws"]
        assert len(draws) == 3 and package.report["psnr"] == min(draws)
    card = (folder / "README.md").read_text()
    assert (
        "`decoder.mlpackage`: one decode of 5 frames" in card and "`decoder_16x24x1.mlpackage`: one decode of 1" in card
    )


@pytest.mark.parametrize("out", ["file", "file/x.mlpackage", "other/x.mlpackage", "n" * 300 + ".mlpackage"])
def test_an_output_path_is_checked_before_the_work(out: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    model = TurboVAED(architecture=small_config().to_dict(), teacher="wan-tiny")
    write_model_folder(tmp_path / "other", model, make_record())
    before = sorted(tmp_path.rglob("*"))
    started = time.process_time()
    status, _, err = run(folder, *SIZE, "--out", tmp_path / out)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert time.process_time() - started < 3
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + "/more"])
def test_a_model_that_cannot_be_named_is_one_line(name: str) -> None:
    status, _, err = run(name, *SIZE)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and "too long" in err


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_a_kill_anywhere_leaves_nothing_after_the_next_start(seconds: float, folder: Path, tmp_path: Path) -> None:
    """Neither beside the package nor in the system's folder for temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "nas.export", str(folder), *SIZE]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not [path for path in folder.iterdir() if path.name.startswith(PREFIX)]:
            time.sleep(0.02)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    assert process.returncode in (0, -signal.SIGKILL)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert (folder / "decoder_16x24x1.mlpackage").is_dir()
    assert list(temporary.iterdir()) == []
