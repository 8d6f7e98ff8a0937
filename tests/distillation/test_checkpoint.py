"""A distillation that is cut off, in every way there is, and goes on to the very weights it would have had."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.data.targets import Targets
from nas.distillation.distill import DistillResult, Progress, distill
from nas.distillation.settings import DistillSettings
from nas.terminal.errors import UserError
from search_spaces import DecoderConfig
from tests.support.small_targets import CONFIG, OTHER_CONFIG, build_student, make_targets

SETTINGS = DistillSettings(
    steps=12, batch_size=2, learning_rate=1e-2, report_every=5, checkpoint_every=3, precision="float32"
)


def run(
    path: Path | None = None,
    settings: DistillSettings = SETTINGS,
    config: DecoderConfig = CONFIG,
    targets: Targets | None = None,
    report: Callable[[Progress], None] | None = None,
) -> DistillResult:
    student = build_student(config=config)
    return distill(student, targets or make_targets(), settings, device="cpu", checkpoint=path, report=report)


def same(one: DistillResult, other: DistillResult) -> bool:
    """Every bit of every weight, and the whole curve."""
    mine, others = one.decoder.state_dict(), other.decoder.state_dict()
    return one.curve == other.curve and all(torch.equal(mine[name], others[name]) for name in mine | others)


def stop_at(
    step: int, error: type[BaseException] = KeyboardInterrupt, steps: list[int] | None = None
) -> Callable[[Progress], None]:
    """Raises the error after this step; `steps` takes the steps up to it."""

    def report(progress: Progress) -> None:
        if steps is not None:
            steps.append(progress.step)
        if progress.step == step:
            raise error

    return report


@pytest.fixture(scope="module")
def whole() -> DistillResult:
    """The run that nothing interrupts."""
    return run()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a run that was stopped at step 7, so of step 6."""
    path = tmp_path / "folder" / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        run(path, report=stop_at(7))
    return path


def test_saving_changes_nothing(tmp_path: Path, whole: DistillResult) -> None:
    assert same(run(tmp_path / "run.pt"), whole)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("step", [1, 3, 5, 6, 11, 12])
def test_stopped_at_any_step_it_ends_the_same(
    step: int, error: type[BaseException], tmp_path: Path, whole: DistillResult
) -> None:
    path, steps = tmp_path / "run.pt", []
    with pytest.raises(error):
        run(path, report=stop_at(step, error))
    assert path.exists() == (step >= 3)
    assert same(run(path, report=lambda progress: steps.append(progress.step)), whole)
    assert steps == list(range(step // 3 * 3 + 1, 13))


def test_stopped_again_and_again(tmp_path: Path, whole: DistillResult) -> None:
    path, first_steps = tmp_path / "run.pt", []
    for stop in (4, 5, 7, 10):
        steps: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            run(path, report=stop_at(stop, steps=steps))
        first_steps.append(steps[0])
    assert first_steps == [1, 4, 4, 7], "a checkpoint is written at steps 3, 6 and 9"
    assert same(run(path, report=lambda progress: first_steps.append(progress.step)), whole)
    assert first_steps[4:] == [10, 11, 12]


def test_a_finished_run_is_only_read(tmp_path: Path, whole: DistillResult) -> None:
    path = tmp_path / "run.pt"
    first = run(path)
    before = path.read_bytes()
    again = run(path, report=stop_at(12))
    assert same(again, whole) and again.seconds == first.seconds
    assert path.read_bytes() == before


def test_time_is_counted_over_all_processes(checkpoint: Path) -> None:
    before = torch.load(checkpoint, weights_only=True)["seconds"]
    data = torch.load(checkpoint, weights_only=True)
    torch.save({**data, "seconds": before + 1000.0}, checkpoint)
    assert 1000 + before < run(checkpoint).seconds < 1000 + before + 60


def test_how_often_it_reports_and_saves_may_change(checkpoint: Path, whole: DistillResult) -> None:
    resumed = run(checkpoint, replace(SETTINGS, report_every=4, checkpoint_every=1))
    assert [step for step, _ in resumed.curve] == [5, 8, 12]
    assert resumed.curve[-1] == whole.curve[-1]


CHILD = """
    import sys, time
    from pathlib import Path
    import torch
    from tests.distillation.test_checkpoint import SETTINGS, replace, run

    path, threads, steps, every, pause_at = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(threads)

    def report(progress):
        print(progress.step, flush=True)
        if progress.step == pause_at:
            time.sleep(600)

    run(Path(path), replace(SETTINGS, steps=steps, checkpoint_every=every), report=report)
"""


def kill_child_at(step: int, path: Path, settings: DistillSettings, *, paused: bool) -> int:
    """Distil in another process and kill -9 it after `step`: while it waits there, or wherever it is by then.

    Returns:
        The first step that the process did.
    """
    numbers = (torch.get_num_threads(), settings.steps, settings.checkpoint_every, step if paused else 0)
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(path), *map(str, numbers)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child, child.stdout:
        first = int(child.stdout.readline())
        for line in child.stdout:
            if int(line) >= step:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    return first


def test_a_killed_process_goes_on_in_another(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=30, checkpoint_every=4)
    path, steps = tmp_path / "run.pt", []
    assert kill_child_at(18, path, settings, paused=True) == 1
    resumed = run(path, settings, report=lambda progress: steps.append(progress.step))
    assert steps == list(range(17, 31))
    assert same(resumed, run(settings=settings))


@pytest.mark.slow
def test_a_process_killed_many_times_while_it_saves(tmp_path: Path) -> None:
    """It saves after every step, so that kills fall into the writing too: the file before or the one after is there."""
    settings = replace(SETTINGS, steps=300, checkpoint_every=1)
    path, steps = tmp_path / "run.pt", []
    saved = 0
    for step in (2, 7, 30, 50, 80, 111):
        assert kill_child_at(step, path, settings, paused=False) == saved + 1, "it goes on where the last one was"
        saved = torch.load(path, weights_only=True)["step"]
        assert saved >= step
    resumed = run(path, settings, report=lambda progress: steps.append(progress.step))
    assert steps[0] == saved + 1
    assert same(resumed, run(settings=settings))


def refused(path: Path, match: str, **options: Any) -> None:
    """It is refused with one line that names the file, and the file stays as it is."""
    before = path.read_bytes()
    with pytest.raises(UserError, match=match) as caught:
        run(path, **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "delete it" in str(caught.value)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_architecture_is_refused(checkpoint: Path) -> None:
    refused(checkpoint, f"architecture is {CONFIG.digest()}, here {OTHER_CONFIG.digest()}", config=OTHER_CONFIG)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 13), ("seed", 1), ("learning_rate", 2e-2), ("betas", (0.8, 0.95)), ("feature_weight", 0.0)],
)
def test_a_checkpoint_with_other_settings_is_refused(name: str, value: Any, checkpoint: Path) -> None:
    refused(checkpoint, f"is of another distillation \\({name} is ", settings=replace(SETTINGS, **{name: value}))


def test_a_checkpoint_for_other_targets_is_refused(checkpoint: Path) -> None:
    refused(checkpoint, "targets is small, here other", targets=replace(make_targets(), key="other"))


class Code:
    """Pickled, it is a call that makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.file}'",)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch before 1.6", "inside"])
def test_code_in_a_checkpoint_never_runs(form: str, checkpoint: Path, tmp_path: Path) -> None:
    code = Code(tmp_path / "was run")
    if form == "pickle":
        checkpoint.write_bytes(pickle.dumps(code, protocol=2))
    elif form == "inside":
        torch.save({**torch.load(checkpoint, weights_only=True), "curve": code}, checkpoint)
    else:
        torch.save(code, checkpoint, _use_new_zipfile_serialization=form == "torch")
    refused(checkpoint, "is not a readable checkpoint")
    assert not code.file.exists()
    pickle.loads(pickle.dumps(code))
    assert code.file.exists(), "the trap itself does not work"


@pytest.mark.parametrize("what", ["nothing", "half", "text", "noise", "without the end"])
def test_a_damaged_file_is_refused(what: str, checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    damaged = {
        "nothing": b"",
        "half": whole[: len(whole) // 2],
        "text": b"once upon a time\n",
        "noise": bytes(reversed(whole)),
        "without the end": whole[:-1],
    }
    checkpoint.write_bytes(damaged[what])
    refused(checkpoint, "is not a readable checkpoint")


def test_a_bit_that_fell_over_is_noticed(checkpoint: Path) -> None:
    """In the middle of the weights, where everything still looks like a checkpoint."""
    data = bytearray(checkpoint.read_bytes())
    weights = torch.load(checkpoint, weights_only=True)["modules"]["average"]
    largest = max(weights.values(), key=torch.Tensor.numel)
    data[data.index(largest.numpy().tobytes()) + largest.nbytes // 2] ^= 0x40
    checkpoint.write_bytes(data)
    refused(checkpoint, "is not a readable checkpoint")


@pytest.mark.parametrize("what", ["other keys", "a list", "no identity", "modules missing", "other shapes"])
def test_a_file_of_something_else_is_refused(what: str, checkpoint: Path) -> None:
    data = torch.load(checkpoint, weights_only=True)
    others = {
        "other keys": {"weights": data["modules"]["student"]},
        "a list": [1, 2, 3],
        "no identity": {**data, "identity": None},
        "modules missing": {**data, "modules": {"student": data["modules"]["student"]}},
        "other shapes": {**data, "modules": {name: {"stem.conv.bias": torch.zeros(3)} for name in data["modules"]}},
    }
    torch.save(others[what], checkpoint)
    refused(checkpoint, "is not a checkpoint|is not a readable checkpoint|is of another distillation")


def test_a_full_disk_leaves_the_last_checkpoint(
    checkpoint: Path, whole: DistillResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = checkpoint.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="cannot write the checkpoint: the disk is full"):
            run(checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert same(run(checkpoint), whole)
