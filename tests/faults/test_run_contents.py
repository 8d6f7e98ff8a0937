"""What the numbers of a run depend on: other contents are said and refused, never mixed."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from nas.data import splits
from nas.data.clips import Clip
from nas.latency import Workload
from nas.latency.devices import PredictedDevice
from nas.latency.prediction.profile import load_profile
from nas.study.contents import changes, contents_of_clips, contents_of_devices, contents_of_space, in_one_line
from nas.study.run import load_run, open_run
from tests.support.errors import refusal
from tests.support.small_runs import CONTENTS, SETTINGS
from tests.support.videos import write_video


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_other_contents_are_said_and_refused() -> None:
    run, _ = open_run(SETTINGS, Path("R"), CONTENTS)
    other = {
        "clip": {"a.mp4": "score 1", "c.mp4": "train 4"},
        "weights of teacher": {"wan-tiny": "5"},
    }
    message = refusal(lambda: open_run(SETTINGS, Path("R"), other))
    assert "clip a.mp4 was for train and is for score, clip b.mp4 is gone, clip c.mp4 is new and 1 more" in message
    assert "restore" in message and "new run" in message
    assert "weights of teacher wan-tiny has changed" in in_one_line(changes(run.contents, other)[3:])
    run.check_contents({"weights of teacher": CONTENTS["weights of teacher"]})
    assert load_run(Path("R")).contents == CONTENTS


def test_a_search_without_a_folder_finds_the_run_with_its_contents() -> None:
    first, _ = open_run(SETTINGS, None, CONTENTS)
    assert "clip" in refusal(lambda: open_run(SETTINGS, None, {"clip": {}}))
    second, _ = open_run(SETTINGS, Path("runs/second"), {"clip": {}})
    assert open_run(SETTINGS, None, {"clip": {}})[0].folder == second.folder
    assert open_run(SETTINGS, None, CONTENTS)[0].folder == first.folder


def test_other_versions_are_a_warning() -> None:
    run, _ = open_run(SETTINGS, Path("R"), CONTENTS)
    assert load_run(Path("R")).version_changes() == []
    older = replace(run, versions={**run.versions, "torch": "1.0"})
    assert len(older.version_changes()) == 1 and "torch 1.0 -> " in older.version_changes()[0]


def test_contents_of_a_space_cover_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents_of_space("turbo3d")
    assert contents_of_space("turbo3d") == before
    assert "dense_conv3d" in before["part"] and "memory_conv2d" not in before["part"]
    real = Path.read_bytes

    def edited(path: Path) -> bytes:
        return real(path) + (b"# edited" if path.name == "dense_conv3d.py" else b"")

    monkeypatch.setattr(Path, "read_bytes", edited)
    assert changes(before, contents_of_space("turbo3d")) == ["part dense_conv3d has changed"]


def test_contents_of_a_predicted_device_are_those_of_its_profile(tmp_path: Path) -> None:
    workload = Workload(64, 64, 5)
    profile = load_profile("iphone-16-pro")
    edited = replace(profile, coefficients={name: 2 * value for name, value in profile.coefficients.items()})
    before, after = (contents_of_devices([PredictedDevice(each)], workload) for each in (profile, edited))
    assert changes(before, after) == ["device iphone-16-pro has changed"]
    assert contents_of_devices([PredictedDevice(load_profile("iphone-16-pro"))], workload) == before


def test_contents_of_clips_are_their_files_and_splits(tmp_path: Path) -> None:
    for video in range(5):
        write_video(tmp_path / "day" / f"{video}.mkv", 5, 16, 16, video)
    before = contents_of_clips(splits.open_clips(tmp_path, 5))
    assert set(before["clip"]) == {f"day/{video}.mkv" for video in range(5)}
    write_video(tmp_path / "day" / "3.mkv", 5, 16, 16, 99)
    after = contents_of_clips(splits.open_clips(tmp_path, 5))
    assert "clip day/3.mkv" in in_one_line(changes(before, after))
    embedded = contents_of_clips(splits.open_clips(None, 17))["clip"]
    assert all(value.startswith(name.split("/")[0]) for name, value in embedded.items()), "as their folders say"


def place_of(number: int) -> str:
    """Any text whose first digits are as random as those of a digest is as good as one."""
    return f"{(number * 2654435761 + 12345) % 2**32:08x}0000"


def split(numbers: range) -> dict[int, str]:
    clips = {place_of(number): Clip(Path(str(number)), 0, 9) for number in numbers}
    return {int(clip.path.name): name for clip, name in splits._split_by_content(clips).items()}


def test_where_no_split_had_to_be_filled_nothing_moves_however_many_are_added() -> None:
    proven = 0
    for start in range(200):
        for count in (5, 8, 12):
            before = split(range(start, start + count))
            places = [int(place_of(number), 16) / 16**12 for number in before]
            borders = (0.0, 0.2, 0.4, 1.0)
            if not all(any(low <= place < high for place in places) for low, high in itertools.pairwise(borders)):
                continue
            for added in (1, 2, 7, 40):
                after = split(range(start, start + count + added))
                assert {number: after[number] for number in before} == before
                proven += 1
    assert proven > 500


def test_an_added_file_never_moves_a_clip_from_tests_to_training() -> None:
    for start in range(300):
        for count in range(3, 15):
            before, after = split(range(start, start + count)), split(range(start, start + count + 1))
            assert set(before.values()) == set(after.values()) == {"train", "score", "test"}
            assert not [clip for clip in before if (before[clip], after[clip]) == ("test", "train")]
    large = list(split(range(3000)).values())
    assert 0.18 < large.count("test") / 3000 < 0.22 and 0.18 < large.count("score") / 3000 < 0.22
