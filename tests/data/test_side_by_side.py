"""Clips computed side by side: the same bits by any number of teachers, in order, and nobody goes on for nothing."""

import time
from pathlib import Path

import pytest
import torch

from nas.data import make_targets, side_by_side
from nas.data.make_targets import open_targets
from nas.data.settings import TargetSettings
from nas.data.side_by_side import each_with_a_teacher, most_teachers
from nas.data.splits import open_clips
from nas.teachers import Teacher, load_teacher
from tests.support.videos import write_video

SETTINGS = TargetSettings(crop=16, num_frames=5, train_crops=2, score_crops=1, test_crops=1, taps=("mid_block",))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


def encoded(teacher: Teacher, seed: int) -> torch.Tensor:
    video = 2 * torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(seed)) - 1
    return teacher.encode(video)


def test_results_are_those_of_one_after_the_other(teacher: Teacher) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = each_with_a_teacher(teacher, range(5), encoded, 1)
        for count in (2, 3, 9):
            found = each_with_a_teacher(teacher, range(5), encoded, count)
            assert all(torch.equal(mine, his) for mine, his in zip(found, alone, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_threads_are_put_back(teacher: Teacher) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        each_with_a_teacher(teacher, range(2), lambda teacher, _: assert_one_thread(), 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def assert_one_thread() -> None:
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_where_one_ends_with_an_error_the_others_stop(teacher: Teacher, error: type[BaseException]) -> None:
    begun: list[int] = []

    def compute(teacher: Teacher, number: int) -> None:
        begun.append(number)
        if number == 0:
            while len(begun) < 2:
                time.sleep(0.01)
            raise error
        while True:  # ends only because the model is asked again
            encoded(teacher, number)

    with pytest.raises(error):
        each_with_a_teacher(teacher, range(50), compute, 2)
    assert set(begun) <= {0, 1, 2}
    encoded(teacher, 0)  # the original goes on


def test_as_many_as_memory_and_cores_allow(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "usable_cores", lambda: 6)
    monkeypatch.setattr(side_by_side, "memory_limit", lambda _: 10_000)
    for needed, count in ((100, 6), (1_000, 5), (2_000, 2), (8_000, 1)):
        monkeypatch.setattr(side_by_side, "memory_of_a_crop", lambda *_, needed=needed: needed)
        assert most_teachers(teacher, SETTINGS) == count
        assert most_teachers(load_teacher("wan-tiny", device="cuda"), SETTINGS) == 1


def test_shards_do_not_depend_on_how_many_compute(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        write_video(tmp_path / "videos" / f"{number}.mkv", 9, 20, 24, number)
    clips = open_clips(tmp_path / "videos", 5, cache=tmp_path)
    found = []
    for count in (2, 3):
        monkeypatch.setattr(make_targets, "most_teachers", lambda *_, count=count: count)
        seen: list[tuple[int, int]] = []
        cache = tmp_path / str(count)
        open_targets(teacher, clips, SETTINGS, lambda *each, seen=seen: seen.append(each), cache=cache)
        assert seen == [(done, seen[0][1]) for done in range(1, seen[0][1] + 1)]
        found.append({path.name: path.read_bytes() for path in (cache / "targets").rglob("*.*")})
    assert found[0] == found[1]
    assert sum(name.endswith(".safetensors") for name in found[0]) == 4
