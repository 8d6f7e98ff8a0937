"""Recipes are values: one for a CPU, one for a GPU, both testable anywhere."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from nas.distillation.phases import load_phases
from nas.distillation.recipes import CPU, GPU, Crops, Recipe, recipe_for
from nas.distillation.settings import DistillSettings
from nas.finalize.__main__ import make_parser as finalize_parser
from nas.search import make_parser as search_parser
from nas.teachers import Teacher, load_teacher


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("wan-tiny")


def test_the_device_decides() -> None:
    assert recipe_for(torch.device("cpu")) is CPU
    assert recipe_for(torch.device("cuda", 1)) is GPU
    assert recipe_for(torch.device("mps")) is CPU


@pytest.mark.parametrize("recipe", [CPU, GPU])
@pytest.mark.parametrize("steps", [1, 5, 60, 30_000])
def test_a_run_of_any_length_is_scored_about_six_times(recipe: Recipe, steps: int) -> None:
    settings = recipe.distillation(steps, seed=3)
    assert (settings.steps, settings.seed, settings.batch_size) == (steps, 3, recipe.batch_size)
    assert 1 <= -(-steps // settings.report_every) <= 7


@pytest.mark.parametrize("recipe", [CPU, GPU])
def test_its_crops_fit_the_teacher(recipe: Recipe, teacher: Teacher) -> None:
    every = [crops.settings(teacher) for crops in (recipe.short, recipe.judging)]
    for settings in every:
        assert teacher.latent_shape(settings.num_frames, settings.crop, settings.crop)
    assert [len(settings.taps) for settings in every] == [2, 0]
    assert every[1].train_crops == every[1].score_crops == every[0].test_crops == 0
    assert recipe.frames_per_clip(teacher) == max(settings.num_frames for settings in every)


def test_a_crop_is_four_latents_wide_at_least(teacher: Teacher) -> None:
    class Coarse:
        spec = replace(teacher.spec, spatial=32)
        tap_names = teacher.tap_names

    assert Crops(64, 4).settings(Coarse()).crop == 128  # type: ignore[arg-type]
    assert Crops(64, 4).settings(teacher).crop == 64


def test_help_quotes_them() -> None:
    search, finalize = (" ".join(make().format_help().split()) for make in (search_parser, finalize_parser))
    assert f"default: {CPU.short_steps}, with a GPU {GPU.short_steps}" in search
    assert "default: 7m, with a GPU none" in search and CPU.search_seconds == 7 * 60 and GPU.search_seconds is None
    assert f"those of the recipe, {load_phases(CPU.full).steps}, with a GPU {load_phases(GPU.full).steps}" in finalize


def test_identity_is_what_the_weights_depend_on() -> None:
    """Every field is in it or named here: how often a run reports or saves changes nothing about its weights."""
    settings = DistillSettings(steps=12, adversarial_weight=0.05, texture_weight=1.0)
    assert replace(settings, report_every=3, checkpoint_every=7).identity() == settings.identity()
    fields = {field.name for field in dataclasses.fields(DistillSettings)}
    assert fields - settings.identity().keys() == {"report_every", "checkpoint_every"}
    assert replace(settings, steps=13).identity() != settings.identity()
    before = DistillSettings(steps=12).identity().keys()
    assert fields - before - {"report_every", "checkpoint_every"} == {
        "texture_weight",
        "adversarial_weight",
        "critic_rate_factor",
    }, "what came later is in it only where it is used"
    assert settings.identity()["betas"] == [0.9, 0.95], "as JSON gives it back"
