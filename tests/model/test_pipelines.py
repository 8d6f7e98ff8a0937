"""diffusers' own pipelines, small and random, with a student in place of their VAE."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.model import TurboVAED
from nas.terminal.errors import UserError
from tests.support.small_teachers import CONFIGS, LTX_TOLD_A_NOISE_LEVEL

pytest.importorskip("transformers", reason="diffusers' video pipelines need transformers")

from tests.model.test_drop_in import student_of
from tests.support.small_pipelines import PIPELINES, decoded_by, make_pipeline, make_vae, run_pipeline

# diffusers' UniPC scheduler hands tensors to numpy in a way that numpy 2 is to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TEXT_TO_VIDEO = ("WanPipeline", "HunyuanVideoPipeline", "CogVideoXPipeline", "LTXPipeline")


def by_hand(model: TurboVAED, latents: Tensor) -> Tensor:
    """Latents as the teacher's `decode` takes them -> frames `(b, t, 3, h, w)` in [0, 1]."""
    with torch.no_grad():
        frames: Tensor = (model.decoder(latents).clamp(-1, 1) / 2 + 0.5).transpose(1, 2)
    return frames


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_gives_the_frames_of_decoding_by_hand(name: str) -> None:
    """The latents are those that the teacher's own VAE is handed at that place."""
    vae = make_vae(PIPELINES[name])
    model, pipe = student_of(PIPELINES[name], vae), make_pipeline(name, vae)
    theirs, latents = decoded_by(pipe, lambda: run_pipeline(name, pipe))
    assert model.attach(pipe) is pipe and pipe.vae is model and model.attach(pipe) is pipe
    frames, same = decoded_by(pipe, lambda: run_pipeline(name, pipe))
    assert torch.equal(same, latents)
    assert frames.shape == theirs.shape == (1, 9, 3, 64, 64)
    assert torch.equal(frames, by_hand(model, latents)) and frames.std() > 0.01


@pytest.mark.parametrize("name", TEXT_TO_VIDEO)
def test_a_loaded_model_needs_no_teacher_for_text_to_video(name: str, tmp_path: Path) -> None:
    """It can be there from the start or come later, and a batch gives a batch."""
    vae = make_vae(PIPELINES[name])
    model, pipe = student_of(PIPELINES[name], vae), make_pipeline(name, vae)
    _, latents = decoded_by(pipe, lambda: run_pipeline(name, pipe, batch=2))
    model.save_pretrained(tmp_path)
    pipe.vae = TurboVAED.from_pretrained(tmp_path)
    built = make_pipeline(name, TurboVAED.from_pretrained(tmp_path))
    for each in (pipe, built):
        frames, same = decoded_by(each, lambda each=each: run_pipeline(name, each, batch=2))  # type: ignore[misc]
        assert len(frames) == 2 and torch.allclose(same, latents, atol=1e-5)
        assert torch.allclose(frames, by_hand(model, same), atol=1e-5)


def test_image_to_video_without_an_encoder_says_what_to_do() -> None:
    name = "WanImageToVideoPipeline"
    pipe = make_pipeline(name, student_of("wan", make_vae("wan")))
    with pytest.raises(UserError, match=r"has no encoder attached: use model\.attach\(pipe\)"):
        run_pipeline(name, pipe)


@pytest.mark.parametrize("name", ["WanPipeline", "CogVideoXImageToVideoPipeline"])
@pytest.mark.parametrize("generic", [False, True])
def test_a_saved_pipeline_loads_again(name: str, generic: bool, tmp_path: Path) -> None:
    """With the encoder, and by its own class or by the one that finds the class."""
    import diffusers

    vae = make_vae(PIPELINES[name])
    pipe = student_of(PIPELINES[name], vae).attach(make_pipeline(name, vae))
    wanted = run_pipeline(name, pipe)
    pipe.save_pretrained(tmp_path)
    saved = diffusers.DiffusionPipeline if generic else getattr(diffusers, name)
    again: Any = saved.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.vae, TurboVAED) and type(again.vae.teacher_vae) is type(vae)
    torch.testing.assert_close(run_pipeline(name, again), wanted, atol=1e-5, rtol=0)


def test_a_pipeline_in_half_precision() -> None:
    """`pipe.to(dtype)` takes the student and its encoder along."""
    name = "CogVideoXImageToVideoPipeline"
    vae = make_vae("cogvideox")
    model, pipe = student_of("cogvideox", vae), make_pipeline(name, vae)
    model.attach(pipe)
    pipe.to(torch.bfloat16)
    prompt = torch.ones(1, 4, 16, dtype=torch.bfloat16)
    options: dict[str, Any] = {"prompt_embeds": prompt, "negative_prompt_embeds": -prompt}
    assert model.dtype == vae.dtype == torch.bfloat16
    frames, latents = decoded_by(pipe, lambda: run_pipeline(name, pipe, **options))
    assert torch.equal(frames, by_hand(model, latents)) and latents.dtype == torch.bfloat16


def test_a_noise_level_is_neither_added_nor_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """From LTX-Video 0.9.1 on the teacher's decoder is told one; the student takes the latents without noise."""
    class_name, config = CONFIGS["ltx"]
    monkeypatch.setitem(CONFIGS, "ltx", (class_name, config | LTX_TOLD_A_NOISE_LEVEL))
    vae = make_vae("ltx")
    assert vae.config.timestep_conditioning
    model, pipe = student_of("ltx", vae), make_pipeline("LTXPipeline", vae)
    _, noisy = decoded_by(pipe, lambda: run_pipeline("LTXPipeline", pipe, decode_timestep=0.5))
    model.attach(pipe)
    frames, latents = decoded_by(pipe, lambda: run_pipeline("LTXPipeline", pipe, decode_timestep=0.5))
    assert torch.equal(frames, by_hand(model, latents)) and not torch.allclose(latents, noisy, atol=0.1)
