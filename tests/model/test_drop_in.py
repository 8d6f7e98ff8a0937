"""A student in place of a VAE of diffusers: its config, its encoder, and what users of diffusers do with models."""

import json
import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from accelerate import cpu_offload_with_hook
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import Tensor

from nas.model import TurboVAED
from nas.model.pipeline_config import Scaling, known_scaling
from nas.model.published import published_scaling
from nas.teachers import list_releases, without_weights
from nas.terminal.errors import UserError
from search_spaces import LatentSpec
from tests.model.test_model import frames_of, make_model
from tests.support.small_pipelines import SPECS, make_vae, student_config
from tests.support.small_targets import make_targets


@pytest.fixture
def latents() -> Tensor:
    return make_targets().split("test").batch([0, 1]).latents


def student_of(teacher: str, vae: Any) -> TurboVAED:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: TurboVAED = TurboVAED(student_config(teacher, vae).to_dict(), teacher).eval()
    return model


PUBLISHED = {"wan", "wan-tiny", "hunyuan", "hunyuan1.5", "cogvideox", "video-dc-ae"}
"""Teachers whose published scaling is known without their weights."""


def test_published_scalings_are_those_of_the_teachers() -> None:
    """As far as this version of diffusers has their classes."""
    seen = set()
    for release in list_releases():
        teacher = without_weights(release)
        assert (known_scaling(release.latents, release.name) is not None) == (release.name in PUBLISHED)
        if release.name in PUBLISHED and hasattr(diffusers, teacher.class_name):
            assert known_scaling(release.latents, release.name) == known_scaling(teacher.spec, "another")
            seen.add(release.name)
    assert seen >= {"wan", "wan-tiny", "hunyuan", "cogvideox"}


@pytest.mark.parametrize("factor", [0.476986, 0.7, 1.15258426, 1.03682])
def test_a_factor_survives_its_inverse(factor: float) -> None:
    assert known_scaling(LatentSpec(16, 8, 4, std=(1 / factor,) * 16), "another") == Scaling(scaling_factor=factor)


@pytest.mark.parametrize("teacher", SPECS)
def test_the_config_is_that_of_the_teacher(teacher: str) -> None:
    """Wherever both have a name, unless it is about how the teacher is built or how wide it is."""
    vae = make_vae(teacher)
    model = student_of(teacher, vae)
    names = set(vae.config) & set(model.config) - {"block_out_channels", "_use_default_values"}
    if teacher == "ltx":
        names -= {"spatial_compression_ratio", "temporal_compression_ratio"}  # None there: the class works them out
        assert torch.equal(model.latents_mean, vae.latents_mean) and torch.equal(model.latents_std, vae.latents_std)
        assert not vae.config.timestep_conditioning
    assert names & {"z_dim", "latent_channels"} and names & {"scaling_factor", "latents_mean"}
    for name in names:
        theirs, ours = vae.config[name], model.config[name]
        assert ours == (list(theirs) if isinstance(theirs, tuple) else theirs), name
    for name in ("spatial_compression_ratio", "temporal_compression_ratio"):
        assert getattr(model, name) == vars(vae).get(name, getattr(model, name))
    if teacher == "cogvideox":
        assert len(model.config["block_out_channels"]) == len(vae.config.block_out_channels)
    if teacher == "wan":
        assert model.temperal_downsample == vae.temperal_downsample


def test_only_what_does_not_follow_is_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture, latents: Tensor) -> None:
    """A folder without it, as older ones are, loads; so does a config that shows everything."""
    model = make_model()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert {name for name in config if name[0] != "_"} == {"architecture", "teacher", "scaling"}
    del config["scaling"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    logging.getLogger("diffusers").addHandler(caplog.handler)
    again = TurboVAED.from_pretrained(tmp_path)
    assert torch.equal(frames_of(again, latents), frames_of(model, latents))
    assert again.config["latents_mean"] == [0.5, -1.0, 2.0, 0.0] and again.config["z_dim"] == 4
    assert again.config["block_out_channels"] == [12, 12, 16] and again.temperal_downsample == [False, True]
    same = TurboVAED.from_config(again.config)
    assert {**same.config, "_name_or_path": ""} == {**again.config, "_name_or_path": ""}
    assert not caplog.records


def test_an_unknown_scaling_says_what_to_do() -> None:
    vae = make_vae("ltx")
    config = student_config("ltx", vae).to_dict()
    config["latents"] |= {"mean": [], "std": []}
    model = TurboVAED(config, "ltx")
    assert model.config["spatial_compression_ratio"] == 32 and not hasattr(model.config, "scaling_factor")
    reads: list[Callable[[], Any]] = [lambda: model.config.scaling_factor, lambda: model.latents_mean]
    for read in reads:
        with pytest.raises(
            (AttributeError, UserError), match=r"scaling of these latents is not known .*: use model\.attach\(pipe\)"
        ):
            read()
    scaling = published_scaling({"latents_mean": vae.latents_mean, "latents_std": vae.latents_std})
    assert scaling is not None
    told = TurboVAED(config, "ltx", scaling.to_dict())
    for each in (told, model.attach_encoder(vae)):
        assert torch.equal(each.latents_mean, vae.latents_mean) and torch.equal(each.latents_std, vae.latents_std)
    assert published_scaling({"latents_mean": torch.zeros(8), "latents_std": torch.ones(8)}) is None
    assert published_scaling({}) is None


@pytest.mark.parametrize("teacher", SPECS)
def test_an_attached_encoder_encodes(teacher: str, tmp_path: Path) -> None:
    """Also after saving and loading, and without a weight of it among those of the student."""
    vae = make_vae(teacher)
    model = student_of(teacher, vae)
    parameters = model.num_parameters()
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    with pytest.raises(UserError, match=r"no encoder attached: use model\.attach\(pipe\) in place of pipe\.vae = "):
        model.encode(video)
    assert model.attach_encoder(vae) is model and model.teacher_vae is vae
    assert model.num_parameters() == parameters and all(name.startswith("decoder.") for name in model.state_dict())
    model.save_pretrained(tmp_path)
    again = TurboVAED.from_pretrained(tmp_path)
    with torch.no_grad():
        wanted = vae.encode(video).latent_dist.mode()
        for each in (model, again, deepcopy(model), student_of(teacher, vae).attach_encoder(tmp_path / "encoder")):
            # Up to rounding: what oneDNN does may depend on where in memory weights of a file happen to lie.
            torch.testing.assert_close(each.encode(video).latent_dist.mode(), wanted)
            torch.testing.assert_close(each.encode(video, return_dict=False)[0].mode(), wanted)
            torch.testing.assert_close(each(video).sample, frames_of(model, wanted))


def test_the_encoder_moves_and_changes_precision_with_the_model() -> None:
    model = student_of("wan", make_vae("wan"))
    model.attach_encoder(make_vae("wan")).to(torch.bfloat16)
    assert model.dtype == model.teacher_vae.dtype == torch.bfloat16
    with torch.no_grad():
        assert model.encode(torch.zeros(1, 3, 1, 16, 16)).latent_dist.mode().dtype == torch.bfloat16
    model.to("meta")
    assert model.teacher_vae.device == model.device == torch.device("meta")


def test_a_repository_on_the_hub_is_not_fetched_without_a_revision() -> None:
    with pytest.raises(UserError, match="owner/name is not a folder: load a VAE of the hub with diffusers"):
        student_of("wan", make_vae("wan")).attach_encoder("owner/name")


def test_what_was_learnt_from_another_vae_is_not_attached() -> None:
    wan, hunyuan, ltx = (make_vae(teacher) for teacher in ("wan", "hunyuan", "ltx"))
    model = student_of("wan", wan)
    with pytest.raises(
        UserError, match="AutoencoderKLLTXVideo has latents of 128 channels, 8x32x32, the decoder takes"
    ):
        model.attach_encoder(ltx)
    with pytest.raises(
        UserError, match=r"AutoencoderKLHunyuanVideo has latents of another mean or std .*: attach the VAE"
    ):
        model.attach_encoder(hunyuan)
    with pytest.raises(UserError, match="no encoder attached"):
        _ = model.teacher_vae


class Counting(ModelHook):  # type: ignore[misc]
    calls = 0

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return args, kwargs


def test_hooks_of_accelerate_are_called(latents: Tensor) -> None:
    """Once for each: offloading moves the model with them."""
    hook, vae = Counting(), make_vae("wan")
    model = student_of("wan", vae).attach_encoder(vae)
    add_hook_to_module(model, hook)
    z = torch.zeros(1, 16, 1, 2, 2)
    calls: list[Callable[[], Any]] = [
        lambda: model.decode(z),
        lambda: model.encode(torch.zeros(1, 3, 1, 16, 16)),
        lambda: list(model.stream([z, z])),
    ]
    for number, call in enumerate(calls, 1):
        call()
        assert hook.calls == number


def test_offloading_moves_the_model_and_its_encoder() -> None:
    """To the meta device in place of a GPU, and back."""
    vae = make_vae("wan")
    model = student_of("wan", vae).attach_encoder(vae)
    _, hook = cpu_offload_with_hook(model, execution_device=torch.device("meta"))
    assert {parameter.device.type for each in (model, vae) for parameter in each.parameters()} == {"cpu"}
    frames = model.decode(torch.zeros(1, 16, 3, 2, 2, device="meta"), return_dict=False)[0]
    assert frames.device.type == "meta" and frames.shape == (1, 3, 9, 16, 16)
    assert {parameter.device.type for each in (model, vae) for parameter in each.parameters()} == {"meta"}
    pipe = SimpleNamespace(vae=model)
    with pytest.raises(UserError, match=r"is being offloaded: attach first, then call enable_\.\.\._offload"):
        student_of("wan", make_vae("wan")).attach(pipe)
    hook.remove()


def test_decode_takes_what_each_pipeline_hands_over(latents: Tensor) -> None:
    model = make_model()
    wanted = frames_of(model, latents)
    with torch.no_grad():
        for found in (
            model.decode(latents, torch.tensor([0.05, 0.05]), return_dict=False)[0],
            model.decode(latents, None, return_dict=False)[0],
            model.decode(latents, None, False)[0],
            model.decode(latents, False)[0],
            model.decode(latents, True).sample,
            model.decode(z=latents).sample,
        ):
            assert torch.equal(found, wanted)


def test_slices_of_a_batch_are_decoded_alone(latents: Tensor) -> None:
    model = make_model()
    wanted, seen = frames_of(model, latents), list[int]()
    assert torch.allclose(frames_of(model, latents[1:]), wanted[1:], atol=1e-6)
    model.decoder.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    model.enable_slicing()
    assert torch.allclose(frames_of(model, latents), wanted, atol=1e-6)
    model.disable_slicing()
    assert torch.equal(frames_of(model, latents), wanted)
    assert seen == [1, 1, 2]


def test_streamed_frames_are_ordinary_tensors(latents: Tensor) -> None:
    """They can be changed in place and stand in a loss."""
    frames = next(make_model().stream([latents]))
    assert not frames.is_inference() and not frames.requires_grad
    frames.add_(1).mul_(0.5)
    gain = torch.ones((), requires_grad=True)
    (frames * gain).square().mean().backward()
    assert gain.grad is not None and gain.grad > 0


def test_variants_and_precision(tmp_path: Path, latents: Tensor) -> None:
    model = make_model().to(torch.float16)
    model.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "diffusion_pytorch_model.fp16.safetensors").is_file()
    again = TurboVAED.from_pretrained(tmp_path, variant="fp16", torch_dtype=torch.float16)
    assert again.dtype == torch.float16 and torch.equal(frames_of(again, latents), frames_of(model, latents))
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        TurboVAED.from_pretrained(tmp_path)


def test_a_copy_is_another_model(latents: Tensor) -> None:
    model = make_model()
    wanted, copied = frames_of(model, latents), deepcopy(model)
    assert torch.equal(frames_of(copied, latents), wanted) and copied.config == model.config
    with torch.no_grad():
        model.decoder.get_submodule("head.conv").get_parameter("bias").add_(1)
    assert torch.equal(frames_of(copied, latents), wanted) and not torch.equal(frames_of(model, latents), wanted)


@pytest.mark.slow
def test_compiled(latents: Tensor) -> None:
    """`decode` in one graph, as `pipe.vae.decode = torch.compile(pipe.vae.decode)` is used."""
    model = make_model()
    wanted = frames_of(model, latents)
    model.decode = torch.compile(model.decode, backend="eager", fullgraph=True)
    assert torch.equal(frames_of(model, latents), wanted)
