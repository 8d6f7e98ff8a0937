"""Packages on disk: one decode and streaming, precision, weights, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blocks.layers.norms import RmsNorm
from nas.core_ml.convert import to_core_ml
from nas.core_ml.interpreter import interpret
from nas.core_ml.program import read_program
from nas.core_ml.proof import prove
from nas.export.functions import make_functions
from nas.export.package import ExportError, export_decoder
from nas.export.settings import ExportSettings, Rewrite
from nas.terminal.errors import UserError
from search_spaces import SEARCH_SPACES, Decoder, LatentSpec
from tests.support.exported_decoders import WAN, Fixed, latents_of, small_decoder


def loud_decoder(factor: float = 1e6) -> Decoder:
    """With features in the thousands, whose squares overflow float16."""
    loud = small_decoder()
    with torch.no_grad():
        loud.stages[0].parts[-1].convs[-1].weight *= factor  # type: ignore[index, union-attr]
    return loud


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return small_decoder()


def test_one_decode(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "decoder.mlpackage"
    report = export_decoder(decoder, ExportSettings(16, 24, 5), path, metadata={"teacher": "wan-tiny"})
    assert report.psnr > 50 and report.compression_cost is None and report.proofs.keys() == {"main"}
    assert report.size_bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert [each.name for each in path.parent.iterdir()] == ["decoder.mlpackage"]
    program = read_program(path)
    assert program.metadata["teacher"] == "wan-tiny" and float(program.metadata["psnr_against_pytorch_db"]) > 50
    latents = 3 * latents_of(2)
    frames = interpret(program, {"latents": latents}, rounded=True)["frames"]
    with torch.no_grad():
        wanted = decoder(latents).clamp(-1, 1)
    assert wanted.abs().max() == 1.0, "the clamp must be seen"
    assert (frames - wanted).abs().max() < 0.02
    assert "one decode of 5 frames at 16x24, float16, weights 16bit" in report.describe()
    json.dumps(report.to_dict(), allow_nan=False)


def check_stream(path: Path, decoder: Decoder, latents: Tensor, chunk: int) -> None:
    """Chunk by chunk through the package, its own state handed on, against one decode in PyTorch."""
    programs = {name: read_program(path, name) for name in ("first", "next")}
    frames: list[Tensor] = []
    state: dict[str, Tensor] = {}
    for index, part in enumerate(torch.split(latents, chunk, dim=2)):
        out = interpret(programs["next" if index else "first"], {"latents": part, **state}, rounded=True)
        frames.append(out.pop("frames"))
        state = {name.removeprefix("new_"): tensor for name, tensor in out.items()}
    with torch.no_grad():
        wanted = decoder(latents).clamp(-1, 1)
    assert torch.cat(frames, dim=2).shape == wanted.shape
    assert (torch.cat(frames, dim=2) - wanted).abs().max() < 0.02


@pytest.mark.parametrize("first", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_stream_of_chunks_gives_the_whole_clip(first: int, tmp_path: Path, decoder: Decoder) -> None:
    """Three chunks."""
    chunk = WAN.num_latents(first)
    path = tmp_path / "stream.mlpackage"
    report = export_decoder(decoder, ExportSettings(16, 24, first, streaming=True), path, metadata={})
    assert report.proofs.keys() == {"first", "next"} and report.psnr > 50
    latents = latents_of(3 * chunk)
    check_stream(path, decoder, latents, chunk)
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    assert report.size_bytes < 1.5 * 2 * parameters, "both functions share their weights"


@pytest.mark.parametrize("weights", ["8bit", pytest.param("palettized", marks=pytest.mark.slow)])
def test_fewer_bits_say_what_they_cost(weights: str, tmp_path: Path, decoder: Decoder) -> None:
    settings = ExportSettings(16, 24, 1, weights=weights)  # type: ignore[arg-type]
    report = export_decoder(decoder, settings, tmp_path / "few.mlpackage", metadata={})
    assert report.uncompressed is not None and report.compression_cost is not None
    full = report.uncompressed["main"].psnr_rounded
    assert report.compression_cost == pytest.approx(full - report.psnr) and report.compression_cost > 1
    program = read_program(tmp_path / "few.mlpackage")
    stored = sum(value.stored_bytes for operation in program.operations for value in operation.values())
    assert stored < 0.75 * 2 * sum(parameter.numel() for parameter in decoder.parameters())
    assert f"{report.compression_cost:.1f} dB less than with 16 bit" in report.describe()


def test_frames_that_are_too_far_off_are_not_written(tmp_path: Path) -> None:
    """Features beyond float16: the export fails and names where; --least-psnr lets it pass and says so."""
    loud, path = loud_decoder(1e8), tmp_path / "decoder.mlpackage"
    with pytest.raises(
        ExportError, match=r"at least 40 dB are expected; the error jumps at \w+ '\w+' in (stage\d|head):"
    ):
        export_decoder(loud, ExportSettings(16, 24, 1), path, metadata={})
    assert list(tmp_path.iterdir()) == []
    report = export_decoder(loud, ExportSettings(16, 24, 1, least_psnr=-200), path, metadata={})
    assert "(the limit of 40 dB was lowered to -200)" in report.describe()


@torch.no_grad()
def test_norms_of_loud_features_are_scaled(tmp_path: Path) -> None:
    """Without that its program is nowhere near."""
    loud, latents, path = loud_decoder(), latents_of(1), tmp_path / "decoder.mlpackage"
    as_it_is = prove(read_program(to_core_ml(loud, (latents,))), {"latents": latents}, {"frames": loud(latents)})
    assert as_it_is.psnr_rounded < 20 < 60 < as_it_is.psnr_exact
    report = export_decoder(loud, ExportSettings(16, 24, 1), path, metadata={}, latents=latents)
    assert report.psnr > 60 and report.scaled_norms == 2 and ", norms scaled: 2," in report.describe()
    assert read_program(path).metadata["scaled_norms"] == "2"
    assert {norm.factor for norm in loud.modules() if isinstance(norm, RmsNorm)} == {1}, "the decoder stays as it is"


@pytest.mark.slow
def test_loud_features_in_a_stream(tmp_path: Path) -> None:
    loud, path = loud_decoder(), tmp_path / "decoder.mlpackage"
    report = export_decoder(loud, ExportSettings(16, 24, 1, streaming=True), path, metadata={})
    assert report.psnr > 60 and report.scaled_norms == 2
    check_stream(path, loud, latents_of(3), 1)


@pytest.mark.slow
def test_mixed_precision_saves_loud_features(tmp_path: Path) -> None:
    settings = ExportSettings(16, 24, 1, precision="mixed")
    report = export_decoder(loud_decoder(), settings, tmp_path / "decoder.mlpackage", metadata={})
    assert report.psnr > 60 and report.scaled_norms == 0


def op_types(path: Path, function: str) -> set[str]:
    """Of the operations; convolutions by their kernel: "3-D", "2-D 3x3"; "depthwise 3-D"."""
    found: set[str] = set()
    for operation in read_program(path, function).operations:
        if operation.op_type != "conv":
            found.add(operation.op_type)
            continue
        weight = operation.inputs["weight"]
        assert not isinstance(weight, tuple)
        kernel = weight.shape[2:]
        shape = "3-D" if len(kernel) == 3 else f"2-D {kernel[0]}x{kernel[1]}"
        found.add("depthwise " * (operation.constant("groups") > 1) + shape)
    return found


REWRITTEN: dict[Rewrite, tuple[set[str], set[str]]] = {
    "slices": ({"3-D", "depthwise 3-D"}, {"depthwise 2-D 5x5"}),
    "joined": ({"3-D"}, {"depthwise 3-D"}),
    "subpixel": ({"upsample_nearest_neighbor"}, {"2-D 2x2"}),
}
"""Types of operations that a rewrite leaves none of, and that are there then."""


@pytest.mark.parametrize(
    ("rewrite", "streaming"),
    [
        pytest.param(rewrite, streaming, marks=[pytest.mark.slow] if streaming or rewrite != "slices" else [])
        for rewrite in REWRITTEN
        for streaming in (False, True)
    ],
)
def test_a_rewrite_that_is_asked_for(rewrite: Rewrite, streaming: bool, tmp_path: Path) -> None:
    """The program has other operations and gives the frames of the decoder as it was."""
    wanted = {"stage0_x_block": "memory_conv2d", "stage1_x_upsampler": "nearest_conv2plus1d"}
    torch.manual_seed(0)
    decoder = Decoder(SEARCH_SPACES["hybrid"].suggest(Fixed(**wanted), WAN)).eval()
    frames, path = 5 if streaming else 1, tmp_path / "x.mlpackage"
    settings = ExportSettings(16, 24, frames, streaming=streaming, rewrites=(rewrite,))
    report = export_decoder(decoder, settings, path, metadata={})
    assert report.psnr > 60 and f"weights 16bit, rewritten: {rewrite}, " in report.describe()
    assert settings.file_name() == f"decoder{'_streaming' * streaming}_{rewrite}.mlpackage"
    assert read_program(path, "next" if streaming else "main").metadata["rewrites"] == rewrite
    gone, there = REWRITTEN[rewrite]
    for function in report.proofs:
        assert not gone & op_types(path, function) and there <= op_types(path, function)
    if streaming:
        check_stream(path, decoder, latents_of(6), 2)


def test_a_rewrite_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'subpixel' finds nothing to change in this decoder: leave it out"):
        settings = ExportSettings(16, 24, 1, rewrites=("subpixel",))
        export_decoder(small_decoder(), settings, tmp_path / "x.mlpackage", metadata={})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ExportSettings(20, 24, 5), "height must be a multiple of 8, got 20"),
        (ExportSettings(16, 24, 4), "4 frames do not fit latents"),
    ],
)
def test_a_size_off_the_grid_is_refused(settings: ExportSettings, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        export_decoder(small_decoder(), settings, tmp_path / "x.mlpackage", metadata={})


def test_only_causal_decoders_stream(tmp_path: Path) -> None:
    both_ways = small_decoder(LatentSpec(channels=16, spatial=8, temporal=4, causal=False))
    with pytest.raises(UserError, match="this decoder does not stream: only a causal decoder streams"):
        export_decoder(both_ways, ExportSettings(16, 24, 1, streaming=True), tmp_path / "x.mlpackage", metadata={})


def test_branches_become_one_convolution(tmp_path: Path) -> None:
    wanted = {"stage0_x_block": "reparameterized_conv3d", "stage1_x_block": "memory_conv2d"}
    torch.manual_seed(0)
    decoder = Decoder(SEARCH_SPACES["hybrid"].suggest(Fixed(**wanted), WAN)).eval()
    assert decoder.config.stages[0].block.name == "reparameterized_conv3d"
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    export_decoder(decoder, ExportSettings(16, 24, 5), tmp_path / "one.mlpackage", metadata={})
    stem_to_next = [
        step.op_type for step in read_program(tmp_path / "one.mlpackage").operations if step.stage == "stage0"
    ]
    assert stem_to_next.count("conv") == 2, "two convolutions, and none beside them where the width stays"
    after = decoder.state_dict()
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


def test_real_latents_are_cut_or_repeated_to_the_size(decoder: Decoder) -> None:
    real = latents_of(3)
    chunks, _ = make_functions(decoder, ExportSettings(16, 40, 5, streaming=True), real)
    first, second = (chunks[name].inputs["latents"] for name in ("first", "next"))
    assert first.equal(real[:, :, :2].repeat(1, 1, 1, 1, 2)[..., :5])
    assert second.equal(real[:, :, [2, 0]].repeat(1, 1, 1, 1, 2)[..., :5])
    functions, _ = make_functions(decoder, ExportSettings(8, 16, 5), real)
    assert functions["main"].inputs["latents"].equal(real[:, :, :2, :1, :2])
