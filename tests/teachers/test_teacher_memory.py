"""What memory a teacher needs: estimated without computing anything, checked against a process that computes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas.data import limits as target_limits
from nas.data.clips import Clip
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.splits import ClipSet
from nas.machine import memory
from nas.machine.memory import memory_limit, peak_bytes
from nas.teachers import load_teacher
from nas.terminal.errors import UserError
from tests.support.full_size_teachers import peak_memory
from tests.support.small_teachers import make_weights, random_video
from tests.support.videos import write_video

MB = 250_000
"""Float32 values that take a megabyte."""


def on_meta(megabytes: int) -> Tensor:
    return torch.empty(megabytes, MB, device="meta")


def test_only_what_lives_together_counts() -> None:
    def one_after_the_other() -> None:
        for _ in range(5):
            on_meta(10) + 1

    def all_kept() -> list[Tensor]:
        return [on_meta(10) + 1 for _ in range(5)]

    assert peak_bytes(one_after_the_other) == 20_000_000
    assert peak_bytes(all_kept) == 60_000_000


def test_views_and_inputs_take_nothing() -> None:
    given = on_meta(10)
    assert peak_bytes(lambda: given.view(-1)[5:].view(5, -1).transpose(0, 1)) == 0
    assert peak_bytes(lambda: given.add_(1)) == 0
    assert peak_bytes(lambda: (given.transpose(0, 1).contiguous(), given)) == 10_000_000


def test_a_convolution_brings_its_data_into_another_layout() -> None:
    """Of its input and output there are copies then, in blocks of 16 channels."""
    pixels = 500 * 500 * 4
    frames, weight = torch.empty(1, 2, 1, 500, 500, device="meta"), torch.empty(20, 2, 1, 1, 1, device="meta")
    assert peak_bytes(lambda: functional.conv3d(frames, weight)) == (20 + 16 + 32) * pixels


def test_the_limit_is_the_smallest_of_machine_shell_and_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    machine = memory_limit(cpu)
    assert 2**30 < machine < 2**46
    for text, expected in ((f"{2**30}\n", 2**30), ("max\n", None)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(memory, "_CONTAINER_LIMIT", tmp_path / "memory.max")
        assert memory_limit(cpu) == expected or (expected is None and memory_limit(cpu) >= machine)
    code = "import torch; from nas.machine.memory import memory_limit; print(memory_limit(torch.device('cpu')))"
    limited = ["bash", "-c", 'ulimit -v 4000000 && exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(limited, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) == min(machine, 4_000_000 * 1024)


def test_targets_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is computed or written, with what they would need."""
    write_video(tmp_path / "a.mkv", 5, 64, 64)
    teacher, clips = load_teacher("wan-tiny"), ClipSet((), (), (Clip(tmp_path / "a.mkv", 0, 5),), "here")
    settings = TargetSettings(64, 5, 0, 0, 1, teacher.tap_names[:2])
    needed = teacher.memory(5, 64, 64, settings.taps)
    monkeypatch.setattr(target_limits, "memory_limit", lambda device: needed - 1)
    message = (
        rf"^clips of 64x64 and 5 frames need about {needed / 1e9:.1f} GB of memory with wan-tiny, there are "
        rf"{needed / 1e9:.1f} GB on cpu: smaller or shorter crops, or a larger machine, are needed$"
    )
    with pytest.raises(UserError, match=message):
        open_targets(teacher, clips, settings, cache=tmp_path / "cache")
    assert "model" not in vars(teacher) and not (tmp_path / "cache" / "targets").exists()
    monkeypatch.setattr(target_limits, "memory_limit", lambda device: needed)
    assert len(open_targets(teacher, clips, settings, cache=tmp_path / "cache").split("test")) == 1


def test_memory_grows_with_clip_and_taps_and_halves_in_half_precision(tmp_path: Path) -> None:
    teacher = load_teacher("hunyuan", make_weights("hunyuan", tmp_path / "hunyuan"))
    small = teacher.memory(9, 64, 64)
    assert 1.7 * small < teacher.memory(17, 64, 64) and 3 * small < teacher.memory(9, 128, 128)
    assert teacher.memory(9, 64, 64, teacher.tap_names) >= small
    before = [(name, id(module)) for name, module in teacher.skeleton.named_modules()]
    encoding, to_a_tap = (teacher.memory(9, 64, 64, taps, frames=False) for taps in ((), teacher.tap_names[:-1]))
    assert encoding <= to_a_tap < small
    assert [(name, id(module)) for name, module in teacher.skeleton.named_modules()] == before
    teacher.dtype = torch.float16
    assert teacher.memory(9, 64, 64) == small // 2
    assert teacher.memory(9, 64, 64) > 2 * sum(each.numel() for each in teacher.skeleton.parameters())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux")
@pytest.mark.parametrize(
    ("name", "frames", "size"), [("wan", 9, 512), ("hunyuan", 17, 256), ("mochi", 13, 256), ("hunyuan1.5", 17, 256)]
)
def test_the_estimate_is_what_a_process_takes(name: str, frames: int, size: int, tmp_path: Path) -> None:
    folder = make_weights(name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", __name__, name, str(folder), str(frames), str(size)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    before, after = map(int, done.stdout.split())
    assert 0.7 < load_teacher(name, folder).memory(frames, size, size) / (after - before) < 1.4


def compute(name: str, folder: Path, frames: int, size: int) -> None:
    """Print the bytes that this process held at most before and after it encoded and decoded a clip."""
    teacher = load_teacher(name, folder)
    teacher.decode(teacher.encode(random_video(teacher.spec.num_frames(2), *[2 * teacher.spec.spatial] * 2)))
    before = peak_memory()
    latents = teacher.encode(random_video(frames, size, size))
    teacher.decode_with_features(latents, ())
    print(before, peak_memory())


if __name__ == "__main__":
    compute(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
