"""`python -m nas.export`: what it writes, what it says, what it refuses."""

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nas.core_ml.program import read_program
from nas.export.__main__ import main
from nas.model import TurboVAED
from nas.model.folder import read_record
from nas.terminal.errors import UserError
from tests.support.exported_decoders import latents_of, small_config
from tests.support.records import latency, make_record


def run(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def test_the_command_writes_into_the_model_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = TurboVAED(architecture=small_config().to_dict(), teacher="wan-tiny")
    model.save_pretrained(folder)
    timed = {"latency_measured": replace(latency(100.0, "measured"), height=16, width=24, num_frames=5)}
    record = make_record(architecture=model.decoder.config.digest(), **timed)
    (folder / "README.md").write_text("# A card\n")
    (folder / "evaluation.json").write_text(json.dumps(record.to_dict()))
    status, out, err = run(folder, "--resolution", "16x24", "--frames", 5)
    assert (status, err) == (0, "") and "dB against PyTorch" in out
    program = read_program(folder / "decoder.mlpackage")
    assert program.inputs[0].shape == (1, 16, 2, 2, 3)
    assert program.metadata["teacher"] == "wan-tiny"
    assert program.metadata["architecture_hash"] == model.decoder.config.digest()
    assert json.loads(program.metadata["architecture"]) == model.decoder.config.to_dict()
    assert json.loads(program.metadata["evaluation"])["to_teacher"]["psnr"] == 31.25
    real = tmp_path / "real.safetensors"
    save_file({"latents": latents_of(3).half()}, real)
    save_file({"latents": torch.ones(1, 8, 1, 2, 2)}, tmp_path / "wrong.safetensors")
    status, _, err = run(folder, "--latents", tmp_path / "wrong.safetensors")
    assert status == 2 and "expected latents (b, 16, t, h, w)" in err and err.count("\n") == 1
    words = "--resolution 16x24 --weights 8bit --least-psnr 30 --rewrite slices --rewrite joined --latents"
    status, _, err = run(folder, *words.split(), real)
    assert (status, err) == (0, "")
    noted = read_record(folder)
    assert noted is not None and replace(noted, packages={}) == record
    assert noted.packages.keys() == {"decoder.mlpackage", "decoder_joined_slices_8bit_16x24x17.mlpackage"}
    card = (folder / "README.md").read_text()
    assert card.startswith("# A card\n") and card.count("## Core ML") == 1
    assert re.search(r"- `decoder\.mlpackage`: one decode of 5 frames at 16x24, .* dB against PyTorch", card)
    assert "of 17 frames at 16x24, float16, weights 8bit, rewritten: joined, slices, " in card
    assert "the limit of 40 dB was lowered to 30" in card


def test_the_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    status, out, err = run(tmp_path / "nothing")
    assert (status, out) == (2, "") and "is not a model folder" in err and err.count("\n") == 1
    (tmp_path / "config.json").write_text("{}")
    status, _, err = run(tmp_path)
    assert status == 2 and "cannot be loaded" in err and err.count("\n") == 1
    with redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--rewrite", "slcies"])
    assert stopped.value.code == 2 and errors.getvalue().count("\n") == 1
    assert all(name in errors.getvalue() for name in ("'slcies'", "subpixel", "joined", "slices"))
    with pytest.raises(UserError, match=r"expected the folder of an \.mlpackage"):
        read_program(tmp_path / "nothing.mlpackage")
