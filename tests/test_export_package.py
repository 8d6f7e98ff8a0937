"""Packages on disk: one decode and streaming, precision, weights, what is refused, and the command."""

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from blocks.norms import RmsNorm
from nas.errors import UserError
from nas.export.__main__ import main, read_latents
from nas.export.coreml import to_core_ml
from nas.export.evaluator import evaluate
from nas.export.functions import make_functions
from nas.export.package import ExportError, export_decoder
from nas.export.program import read_program
from nas.export.proof import prove
from nas.export.settings import ExportSettings, Rewrite
from nas.model import TurboVAED
from nas.model_folder import read_numbers
from search_spaces import SEARCH_SPACES, Decoder, DecoderConfig, LatentSpec

WAN = LatentSpec(
    channels=16,
    spatial=8,
    temporal=4,
    mean=tuple(i / 8 - 1 for i in range(16)),
    std=tuple(1 + i / 8 for i in range(16)),
)


class Fixed:
    """Chooses what is asked for, else what is offered first: a small decoder."""

    def __init__(self, **wanted: object) -> None:
        self.wanted = {name.replace("_x_", "."): value for name, value in wanted.items()}

    def suggest_categorical(self, name, choices, /):  # type: ignore[no-untyped-def]
        return self.wanted.get(name, choices[0])


def small_config(latents: LatentSpec = WAN) -> DecoderConfig:
    wanted = {"stage0_x_block": "memory_conv2d", "stage1_x_upsampler": "nearest_conv3d", "has_shortcut": True}
    return SEARCH_SPACES["hybrid"].suggest(Fixed(**wanted), latents)


def small_decoder(latents: LatentSpec = WAN) -> Decoder:
    """Causal, with a shortcut, with frames in about [-1, 1]."""
    torch.manual_seed(0)
    decoder = Decoder(small_config(latents)).eval()
    decoder.initialise_from_latent_statistics()
    return decoder


def loud_decoder(factor: float = 1e6) -> Decoder:
    """With features in the thousands, whose squares overflow float16."""
    loud = small_decoder()
    with torch.no_grad():
        loud.stages[0].parts[-1].convs[-1].weight *= factor  # type: ignore[index, union-attr]
    return loud


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return small_decoder()


def latents_of(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 16, frames, 2, 3, generator=torch.Generator().manual_seed(seed))


def test_one_decode(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "decoder.mlpackage"
    report = export_decoder(decoder, ExportSettings(16, 24, 5), path, metadata={"teacher": "wan-tiny"})
    assert report.psnr > 50 and report.compression_cost is None and report.proofs.keys() == {"main"}
    assert report.size_bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert [each.name for each in path.parent.iterdir()] == ["decoder.mlpackage"]
    program = read_program(path)
    assert program.metadata["teacher"] == "wan-tiny" and float(program.metadata["psnr_against_pytorch_db"]) > 50
    latents = 3 * latents_of(2)
    frames = evaluate(program, {"latents": latents}, rounded=True)["frames"]
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
        out = evaluate(programs["next" if index else "first"], {"latents": part, **state}, rounded=True)
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


def kinds(path: Path, function: str) -> set[str]:
    """Of the operations; convolutions by their kernel: "3-D", "2-D 3x3"; "depthwise 3-D"."""
    found: set[str] = set()
    for operation in read_program(path, function).operations:
        if operation.kind != "conv":
            found.add(operation.kind)
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
"""Kinds of operations that a rewrite leaves none of, and that are there then."""


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
        assert not gone & kinds(path, function) and there <= kinds(path, function)
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
    stem_to_next = [step.kind for step in read_program(tmp_path / "one.mlpackage").operations if step.stage == "stage0"]
    assert 2 <= stem_to_next.count("conv") <= 3, "two convolutions, and a shortcut where the width changes"
    after = decoder.state_dict()
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


def run(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def test_the_command_writes_into_the_model_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = TurboVAED(architecture=small_config().to_dict(), teacher="wan-tiny")
    model.save_pretrained(folder)
    (folder / "README.md").write_text("# A card\n")
    (folder / "evaluation.json").write_text('{"evaluation": {"psnr": 31.5}}')
    status, out, err = run(folder, "--resolution", "16x24", "--frames", 5)
    assert (status, err) == (0, "") and "dB against PyTorch" in out
    program = read_program(folder / "decoder.mlpackage")
    assert program.inputs[0].shape == (1, 16, 2, 2, 3)
    assert program.metadata["teacher"] == "wan-tiny"
    assert program.metadata["architecture_hash"] == model.decoder.config.digest()
    assert json.loads(program.metadata["architecture"]) == model.decoder.config.to_dict()
    assert json.loads(program.metadata["evaluation"]) == {"psnr": 31.5}
    real = tmp_path / "real.safetensors"
    save_file({"latents": latents_of(3).half()}, real)
    words = "--resolution 16x24 --weights 8bit --least-psnr 30 --rewrite slices --rewrite joined --latents"
    status, _, err = run(folder, *words.split(), real)
    assert (status, err) == (0, "")
    numbers = read_numbers(folder)
    assert numbers is not None and numbers["evaluation"] == {"psnr": 31.5}
    assert numbers["core_ml"]["packages"].keys() == {"decoder.mlpackage", "decoder_joined_slices_8bit.mlpackage"}
    card = (folder / "README.md").read_text()
    assert card.startswith("# A card\n") and card.count("## Core ML") == 1
    assert re.search(r"- `decoder\.mlpackage`: one decode of 5 frames at 16x24, .* dB against PyTorch", card)
    assert "of 17 frames at 16x24, float16, weights 8bit, rewritten: joined, slices, " in card
    assert "the limit of 40 dB was lowered to 30" in card


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    status, out, err = run(tmp_path / "nothing")
    assert (status, out) == (2, "") and "is no model folder" in err and err.count("\n") == 1
    (tmp_path / "config.json").write_text("{}")
    status, _, err = run(tmp_path)
    assert status == 2 and "cannot be loaded" in err and err.count("\n") == 1
    with redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--rewrite", "slcies"])
    assert stopped.value.code == 2 and errors.getvalue().count("\n") == 1
    assert all(name in errors.getvalue() for name in ("'slcies'", "subpixel", "joined", "slices"))
    with pytest.raises(UserError, match=r"expected the folder of an \.mlpackage"):
        read_program(tmp_path / "nothing.mlpackage")


def test_real_latents_are_cut_or_repeated_to_the_size(decoder: Decoder) -> None:
    real = latents_of(3)
    chunks, _ = make_functions(decoder, ExportSettings(16, 40, 5, streaming=True), real)
    first, second = (chunks[name].inputs["latents"] for name in ("first", "next"))
    assert first.equal(real[:, :, :2].repeat(1, 1, 1, 1, 2)[..., :5])
    assert second.equal(real[:, :, [2, 0]].repeat(1, 1, 1, 1, 2)[..., :5])
    functions, _ = make_functions(decoder, ExportSettings(8, 16, 5), real)
    assert functions["main"].inputs["latents"].equal(real[:, :, :2, :1, :2])


@pytest.mark.parametrize("content", [None, b"nonsense", {"x": torch.ones(1, 16, 1, 2, 2)}, torch.ones(1, 8, 1, 2, 2)])
def test_latents_that_cannot_be_used_are_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "latents.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content if isinstance(content, dict) else {"latents": content}, path)
    with pytest.raises(
        UserError, match=r"expected a safetensors file with a tensor 'latents' of shape \(1, 16, t, h, w\)"
    ):
        read_latents(path, WAN)
