"""`nas.decode`: the frames of one decode, piece by piece, into every kind of output; bad input is one clear line."""

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from safetensors.torch import save_file
from torch import Tensor

from nas.data.clips import to_video
from nas.decode import main, to_pixels
from nas.machine import fast_convolutions
from nas.model import TurboVAED
from nas.teachers import load_teacher
from search_spaces import PRESETS, DecoderConfig, LatentSpec, adapt
from tests.model.test_model import frames_of, make_model
from tests.support.commands import write_teacher
from tests.support.run_folders import list_files
from tests.support.small_decoders import make_latents
from tests.support.small_targets import BIDIRECTIONAL, CONFIG, SPEC
from tests.support.videos import write_video

WAN = LatentSpec(channels=16, spatial=8, temporal=4)


@dataclass(frozen=True)
class Folder:
    """Where a command runs, in this process."""

    path: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: object, status: int = 0, quiet: bool = True) -> str:
        """Run it and return what it printed, or its one line of error."""
        before = list_files(self.path)
        assert main([str(each) for each in (*arguments, "--device", "cpu")]) == status
        out, err = self.capsys.readouterr()
        if status == 0:
            assert err == ""
            return out
        assert list_files(self.path) == before
        if status == 2:
            assert err.startswith("error: ") and err.count("\n") == 1 and not (quiet and out)
        return err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path, capsys)


@pytest.fixture
def latents() -> Tensor:
    latents = make_latents(SPEC, 6, 5, 4)
    save_file({"latents": latents}, "z.safetensors")
    return latents


def read_back(path: Path) -> np.ndarray:
    """Frames of a file, or of a folder of pictures in the order of their names."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    frames = []
    for file in files:
        with av.open(str(file)) as container:
            frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Up to rounding to 8 bits, which a difference of 1e-6 can turn."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    difference = np.abs(found.astype(int) - wanted)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("output", ["out.mkv", "pictures"])
@pytest.mark.parametrize("tile", [[], ["--tile"]])
def test_latents_piece_by_piece_give_the_frames_of_one_decode(
    folder: Folder, latents: Tensor, output: str, tile: list[str]
) -> None:
    model = make_model()
    model.save_pretrained("M")
    printed = folder.run("M", "z.safetensors", "-o", output, *tile)
    assert_same(read_back(Path(output)), to_pixels(frames_of(model, latents)))
    assert "chunk by chunk on cpu" in printed and "latents (1, 4, 6, 5, 4)" in printed
    assert "done      11 frames of 20x16 in " in printed and " frames/s" in printed
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(["M", output, "z.safetensors"])


@pytest.mark.parametrize(("output", "tolerance"), [("out.mp4", 6), ("out.mov", 6), ("out.y4m", 2)])
def test_lossy_files_keep_size_rate_and_colours(folder: Folder, latents: Tensor, output: str, tolerance: float) -> None:
    make_model().save_pretrained("M")
    folder.run("M", "z.safetensors", "-o", "exact.mkv", "--fps", "30000/1001")
    folder.run("M", "z.safetensors", "-o", output, "--fps", "30000/1001")
    found, wanted = read_back(Path(output)), read_back(Path("exact.mkv"))
    assert found.shape == wanted.shape
    assert np.abs(found.mean(axis=(1, 2)) - wanted.mean(axis=(1, 2))).max() < tolerance
    for path in (output, "exact.mkv"):
        with av.open(path) as container:
            rate = container.streams.video[0].average_rate
            assert rate is not None and abs(float(rate) - 30000 / 1001) < 0.01


@pytest.mark.parametrize("config", [CONFIG, BIDIRECTIONAL], ids=["streams", "at once"])
def test_convolutions_are_the_fast_ones(
    folder: Folder, latents: Tensor, config: DecoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    compute = fast_convolutions._conv3d

    def note(x: Tensor, *rest: Any) -> Tensor:
        seen.append(x)
        return compute(x, *rest)

    monkeypatch.setattr(fast_convolutions, "_conv3d", note)
    make_model(config).save_pretrained("M")
    folder.run("M", "z.safetensors", "-o", "out.mkv")
    assert seen


def test_a_model_that_looks_ahead_decodes_at_once_and_says_so(folder: Folder, latents: Tensor) -> None:
    model = make_model(BIDIRECTIONAL)
    model.save_pretrained("M")
    printed = folder.run("M", "z.safetensors", "-o", "out.mkv", "--tile")
    assert "warning   this model does not stream: memory grows with the length of the clip" in printed
    assert_same(read_back(Path("out.mkv")), to_pixels(frames_of(model, latents)))


def test_a_video_goes_through_the_teacher_and_is_shown_beside(folder: Folder) -> None:
    """24 frames are 1 + 5 x 4 and three that make no whole latent; 37 pixels are cropped to 32, 52 to 48."""
    write_teacher(Path("T"))
    video = write_video(Path("in.mkv"), 24, 38, 52)[:21, 3:35, 2:50]
    model: TurboVAED = TurboVAED(adapt(PRESETS["taehv_wan"], WAN, 16).to_dict(), "wan-tiny").eval()
    model.save_pretrained("M")
    printed = folder.run("M", "in.mkv", "-o", "out.mkv", "--compare", "--teacher-weights", "T")
    found = read_back(Path("out.mkv"))
    assert np.array_equal(found[:, :, :48], video)
    wanted = frames_of(model, load_teacher("wan-tiny", Path("T")).encode(to_video(video)))
    assert_same(found[:, :, 48:], to_pixels(wanted))
    assert "in.mkv, 32x48, encoded by wan-tiny" in printed and "done      21 frames of 32x96" in printed
    assert "the last 3 frames of the video make no whole latent and are left out" in printed


BAD: dict[str, tuple[list[str], str]] = {
    "no such model": (["nowhere", "z.safetensors", "-o", "out.mp4"], "nowhere is not a model folder"),
    "no such latents": (["M", "none.pt", "-o", "out.mp4"], "none.pt cannot be read"),
    "no such video": (["V", "none.mp4", "-o", "out.mp4"], "none.mp4 cannot be read"),
    "another width": (["M", "wide.npy", "-o", "out.mp4"], "shape (1, 5, 3, 4, 4): expected latents (b, 4, t, h, w)"),
    "another rank": (["M", "flat.npy", "-o", "out.mp4"], "shape (4, 4, 4): expected latents"),
    "not finite": (["M", "nan.npy", "-o", "out.mp4"], "not finite (NaN or infinity)"),
    "two clips": (["M", "two.npy", "-o", "out.mp4"], "the latents of 2 clips: give those of one clip"),
    "no video": (["V", "junk.mp4", "-o", "out.mp4"], "junk.mp4 cannot be read as a video"),
    "smaller than a latent": (["V", "small.mkv", "-o", "out.mp4"], "expected at least 8 pixels a side"),
    "no teacher": (["M", "small.mkv", "-o", "out.mp4"], "unknown teacher 'formula'"),
    "another teacher": (["W", "small.mkv", "-o", "out.mp4"], "have channels 16, the model decodes 4"),
    "unknown ending": (["M", "z.safetensors", "-o", "out.gif"], "ends in .mp4, .mov, .mkv, .y4m, or without an ending"),
    "a folder": (["M", "z.safetensors", "-o", "M"], "M is there already: choose another name"),
    "a folder as a video": (["M", "z.safetensors", "-o", "there.mp4"], "is there already and is a folder"),
    "below a file": (["M", "z.safetensors", "-o", "z.safetensors/out.mp4"], "a part of the path is a file"),
    "no such device": (["M", "z.safetensors", "-o", "out.mp4", "--device", "tpu"], "no device 'tpu' here: expected"),
    "nothing to compare": (["M", "z.safetensors", "-o", "out.mp4", "--compare"], "--compare shows a video beside"),
}


@pytest.fixture(scope="module")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the rows of `BAD` name."""
    folder = tmp_path_factory.mktemp("bad")
    make_model().save_pretrained(folder / "M")
    TurboVAED(CONFIG.to_dict(), "wan-tiny").save_pretrained(folder / "W")
    narrow = adapt(PRESETS["taehv_wan"], WAN, 16)
    TurboVAED(narrow.to_dict(), "wan-tiny").save_pretrained(folder / "V")
    save_file({"latents": make_latents(SPEC, 2, 3, 3)}, folder / "z.safetensors")
    shapes: dict[str, tuple[int, ...]] = {"wide": (1, 5, 3, 4, 4), "flat": (4, 4, 4), "two": (2, 4, 3, 4, 4)}
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", np.zeros(shape, np.float32))
    np.save(folder / "nan.npy", np.full((1, 4, 1, 2, 2), np.nan, np.float32))
    (folder / "junk.mp4").write_bytes(b"no video at all " * 99)
    write_video(folder / "small.mkv", 3, 6, 6)
    (folder / "there.mp4").mkdir()
    return folder


@pytest.mark.parametrize("row", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    bad_inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], row: str
) -> None:
    arguments, expected = BAD[row]
    monkeypatch.chdir(bad_inputs)
    before = list_files(bad_inputs)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert expected in err and err.startswith("error: ") and err.count("\n") == 1 and out == ""
    assert list_files(bad_inputs) == before


@pytest.mark.parametrize("text", ["0", "-3", "fast", "1/0"])
def test_a_rate_is_frames_per_second(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["M", "z.pt", "-o", "out.mp4", "--fps", text])
    assert ended.value.code == 2 and "frames per second" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out.mkv", "pictures"])
def test_what_ends_in_the_middle_leaves_nothing(
    folder: Folder, latents: Tensor, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after some chunks."""
    make_model().save_pretrained("M")
    stream = TurboVAED.stream

    def interrupted(model: TurboVAED, chunks: Any) -> Iterator[Tensor]:
        for index, frames in enumerate(stream(model, chunks)):
            if index == 3:
                raise KeyboardInterrupt
            yield frames

    monkeypatch.setattr(TurboVAED, "stream", interrupted)
    assert "interrupted" in folder.run("M", "z.safetensors", "-o", output, status=130)


def test_a_disk_that_takes_no_more_is_one_line(folder: Folder) -> None:
    """What was there before stays."""
    make_model().save_pretrained("M")
    save_file({"latents": make_latents(SPEC, 30, 40, 40)}, "z.safetensors")
    Path("out.mkv").write_bytes(b"older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_100_000, hard))
    try:
        error = folder.run("M", "z.safetensors", "-o", "out.mkv", "--fps", "24", status=2, quiet=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write the frames: the file is larger than the disk or the shell allows" in error
