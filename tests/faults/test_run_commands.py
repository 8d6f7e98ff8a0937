"""The commands over runs that are not as they were: one true line each, and the run stays as it is."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.machine.files import read_json, write_json
from tests.support.commands import Inputs, Shell, make_inputs, make_run, refuse, wait_for_file, write_teacher
from tests.support.run_folders import list_files, read_trials
from tests.support.videos import write_video

PART = """
from dataclasses import dataclass
from torch import Tensor, nn
from blocks import BlockConfig, choice, register_block
from blocks.registry import Block
from blocks.time_context import TimeContext
from search_spaces import SEARCH_SPACES, register_space
from dataclasses import replace


@register_block("mine", label="mine")
class Mine(Block):
    @dataclass(frozen=True)
    class Config(BlockConfig):
        kernel_size: int = choice(1, 3)

    def __init__(self, config: Config, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: TimeContext) -> Tensor:
        return self.conv(x)


SPACE = SEARCH_SPACES["turbo3d"]
LEVELS = tuple(replace(level, blocks=(*level.blocks, "mine")) for level in SPACE.levels)
register_space(replace(SPACE, name="ours", levels=LEVELS), __name__)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> Path:
    return make_run(inputs)


@pytest.fixture
def shell(tmp_path: Path, inputs: Inputs) -> Shell:
    return Shell(tmp_path, inputs.cache)


@pytest.fixture
def run(shell: Shell, kept: Path) -> Path:
    """A copy of a finished run, as `R` in the shell's folder."""
    shutil.copytree(kept, shell.folder / "R")
    return shell.folder / "R"


def replace_clip(shell: Shell, folder: Path) -> None:
    write_video(folder / "video1.mp4", 24, 64, 64, video=77)


def add_clip(shell: Shell, folder: Path) -> None:
    write_video(folder / "a_new_one.mp4", 24, 64, 64, video=78)


CLIPS: dict[str, tuple[Callable[[Shell, Path], None], str]] = {
    "replaced": (replace_clip, "clip video1.mp4"),
    "added": (add_clip, "clip a_new_one.mp4 is new"),
}


@pytest.mark.parametrize("row", CLIPS)
def test_other_clips_in_the_same_folder(shell: Shell, inputs: Inputs, run: Path, row: str) -> None:
    change, expected = CLIPS[row]
    videos = shell.folder / "videos"
    shutil.copytree(inputs.videos, videos)
    config = read_json(run / "config.json")
    config["settings"]["clips"] = str(videos)
    write_json(run / "config.json", config)
    change(shell, videos)
    before = list_files(run)
    refuse(shell, "nas.search", inputs.arguments("--clips", "videos", "--run", "R"), expected, "restore", "new run")
    done = shell.fork("nas.finalize", "R")
    assert done.status == 2 and expected in done.error
    assert {**list_files(run), ".lock": 0} == {**before, ".lock": 0}


def test_other_weights_at_the_same_path(shell: Shell, inputs: Inputs, run: Path) -> None:
    write_teacher(shell.folder / "teacher")
    config = read_json(run / "config.json")
    config["settings"]["teacher_weights"] = str(shell.folder / "teacher")
    config["contents"]["weights of teacher"] = {"wan-tiny": "0" * 64}
    write_json(run / "config.json", config)
    arguments = inputs.arguments("--teacher-weights", "teacher", "--run", "R")
    refuse(shell, "nas.search", arguments, "weights of teacher wan-tiny has changed", "new run")
    done = shell.fork("nas.finalize", "R")
    assert done.status == 2 and "weights of teacher wan-tiny has changed" in done.error


@pytest.mark.parametrize("module", ["nas.search", "nas.finalize", "nas.latency"])
def test_another_part_of_the_space(shell: Shell, inputs: Inputs, run: Path, module: str) -> None:
    config = read_json(run / "config.json")
    config["contents"]["part"]["dense_conv3d"] = "0" * 16
    write_json(run / "config.json", config)
    refuse(shell, module, command(module, inputs), "part dense_conv3d has changed", "new run")


def test_other_versions_are_a_warning_only(shell: Shell, inputs: Inputs, run: Path) -> None:
    config = read_json(run / "config.json")
    config["versions"]["torch"] = "1.0"
    write_json(run / "config.json", config)
    done = shell.fork("nas.search", *inputs.arguments("--run", "R"))
    assert (done.status, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if "torch 1.0 -> " in line and line.startswith("warning")]


def test_fewer_trials_than_were_trained(shell: Shell, inputs: Inputs, run: Path) -> None:
    done = shell.fork("nas.search", *inputs.arguments("--run", "R", "--trials", "1"))
    assert done.status == 0 and "2 trained" in done.stdout and "of 1" not in done.stdout


def command(module: str, inputs: Inputs) -> list[str]:
    """The arguments with which a command reads the study in `R`."""
    if module == "nas.search":
        return inputs.arguments("--run", "R", "--trials", "3")
    return ["measure", "R", "--device", "host"] if module == "nas.latency" else ["R"]


@pytest.mark.parametrize("module", ["nas.search", "nas.finalize", "nas.latency", "nas.report"])
def test_a_damaged_study_in_every_command(shell: Shell, inputs: Inputs, run: Path, module: str) -> None:
    path = run / "study.db"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    done = shell.fork(module, *command(module, inputs))
    assert done.status == 2 and "R/study.db cannot be read" in done.error and "restore it" in done.error
    assert path.read_bytes() == data[: len(data) // 2]
    if module == "nas.search":  # with which a search is watched, and followed by another one
        for option in ("--status", "--from-run"):
            new = [] if option == "--status" else inputs.arguments("--run", "S", "--latency-budget", "0.3ms")
            done = shell.fork(module, *new, option, "R")
            assert done.status == 2 and "R/study.db cannot be read" in done.error, option


@pytest.mark.slow
def test_a_locked_study_is_said_to_be_locked(shell: Shell, inputs: Inputs, run: Path) -> None:
    connection = sqlite3.connect(run / "study.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    done = shell.fork("nas.search", *inputs.arguments("--run", "R", "--trials", "3"))
    connection.close()
    assert done.status == 2 and "locked" in done.error and "close that program" in done.error
    assert "free space" not in done.error


@pytest.mark.parametrize(
    "harm", [*(pytest.param(each, marks=pytest.mark.slow) for each in ("moved", "deleted")), "database deleted"]
)
def test_a_run_that_goes_away_while_it_is_searched(shell: Shell, inputs: Inputs, harm: str) -> None:
    arguments = inputs.arguments("--run", "R", "--trials", "3", "--steps", "4000")
    running = shell.start_fork("nas.search", *arguments)
    wait_for_file(shell.folder / "R", "trials/*/config.json")
    if harm == "moved":
        (shell.folder / "R").rename(shell.folder / "S")
    elif harm == "deleted":
        shutil.rmtree(shell.folder / "R")
    else:
        (shell.folder / "R" / "study.db").unlink()
    done = running.finish()
    assert done.status == 2 and "moved" in done.error and "R" in done.error
    assert "saved  " not in done.stdout
    assert (shell.folder / "R").exists() == (harm == "database deleted"), "nothing is made in its place"


def test_a_search_that_ends_by_its_time_limit_says_so(shell: Shell, inputs: Inputs, run: Path) -> None:
    done = shell.fork("nas.search", *inputs.arguments("--run", "R", "--trials", "99", "--time-limit", "0.001s"))
    assert done.status == 0
    assert "stopped   the time limit of 0.001 s is over: the same command goes on\n" in done.stdout


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_is_none_leaves_no_folder(shell: Shell, inputs: Inputs, seed: str) -> None:
    refuse(shell, "nas.search", inputs.arguments("--run", "R", f"--seed={seed}"), "--seed", "from 0 to 4294967295")


@pytest.mark.slow
def test_an_edited_part_of_a_plugin(shell: Shell, inputs: Inputs) -> None:
    """From files to the refusal, in whole: nothing of the run's own record is edited."""
    (shell.folder / "mine.py").write_text(PART)
    arguments = inputs.arguments("--space", "ours", "--plugin", "mine", "--run", "R", "--trials", "1")
    done = shell.fork("nas.search", *arguments)
    assert (done.status, done.stderr) == (0, "")
    assert len(read_trials(shell.folder / "R")) > 1
    shutil.rmtree(shell.folder / "__pycache__", ignore_errors=True)
    (shell.folder / "mine.py").write_text(PART.replace("choice(1, 3)", "choice(1, 3, 5)"))
    refuse(shell, "nas.search", arguments, "part mine has changed", "new run")
