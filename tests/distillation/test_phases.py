"""Recipes of full distillations are files: the packaged ones, and those of users."""

from pathlib import Path

import pytest

from nas.distillation.phases import Phases, list_recipes, load_phases
from nas.distillation.recipes import CPU, GPU
from nas.teachers import load_teacher
from nas.terminal.errors import UserError

ONE = """
[[phases]]
name = "frames"
steps = 30
crops = { pixels = 64, latent_frames = 3, train = 2, score = 1 }
settings = { learning_rate = 1, betas = [0.9, 0.99], decay = "none" }
"""
"""With an integer where a float is meant, as people write it."""


def load(tmp_path: Path, text: str) -> Phases:
    (tmp_path / "mine.toml").write_text(text)
    return load_phases(str(tmp_path / "mine.toml"))


def test_the_packaged_ones_are_whole() -> None:
    assert {CPU.full, GPU.full, "paper"} <= set(list_recipes())
    teacher = load_teacher("wan-tiny")
    for name in list_recipes():
        phases = load_phases(name)
        assert phases.steps == sum(phase.steps for phase in phases.phases)
        for phase in phases.phases:
            settings = phase.distillation(seed=3)
            assert (settings.steps, settings.seed) == (phase.steps, 3)
            assert settings.report_every <= settings.steps / 5
            assert (settings.feature_weight == 0) == (not phase.crops.settings(teacher).taps), "features need taps"


def test_the_paper_trains_on_the_video() -> None:
    for phase in load_phases("paper").phases:
        settings = phase.distillation(0)
        assert (settings.learning_rate, settings.decay, settings.weight_decay) == (1e-4, "none", 1e-4)
        assert (settings.teacher_weight, settings.truth_weight, settings.perceptual_weight) == (0, 1, 1)


def test_only_the_second_stage_of_the_paper_has_a_critic() -> None:
    weights = {
        name: [phase.distillation(0).adversarial_weight for phase in load_phases(name).phases]
        for name in list_recipes()
    }
    assert weights.pop("paper") == [0, 0.05]
    assert not any(weight for phases in weights.values() for weight in phases)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (phase,) = load(tmp_path, ONE).phases
    settings = phase.distillation(seed=5)
    assert (settings.learning_rate, settings.betas, settings.seed) == (1.0, (0.9, 0.99), 5)
    assert load(tmp_path, "\ufeff" + ONE) == load(tmp_path, ONE)


def test_latents_are_samples_only_where_a_file_says_so(tmp_path: Path) -> None:
    teacher = load_teacher("wan-tiny")
    plain, sampled = (
        load(tmp_path, ONE.replace("score = 1", text)) for text in ("score = 1", "score = 1, sampled = true")
    )
    assert not plain.phases[0].crops.settings(teacher).sampled and sampled.phases[0].crops.settings(teacher).sampled
    assert sampled.phases[0].crops.identity() == plain.phases[0].crops.identity() | {"sampled": True}
    crops = [phase.crops for name in list_recipes() for phase in load_phases(name).phases]
    assert not any("sampled" in each.identity() for each in (*crops, CPU.short, GPU.short))


def test_steps_are_shared_out_in_proportion(tmp_path: Path) -> None:
    phases = load(tmp_path, ONE + ONE.replace('frames"', 'more"').replace("30", "10"))
    for steps in (1, 2, 3, 4, 7, 40, 401):
        scaled = phases.scaled(steps)
        assert scaled.steps == steps
        assert abs(scaled.phases[0].steps - 0.75 * steps) < 1
    assert [phase.name for phase in phases.scaled(1).phases] == ["frames"]
    assert phases.scaled(40) == phases


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[phases]]", "[phases]", "'phases' has to be"),
        (ONE, "", "'phases' is missing"),
        (ONE, "phases = []", "'phases' is empty"),
        (ONE, ONE + ONE, "two phases are named 'frames'"),
        ("steps = 30", "", "'steps' is missing"),
        ("steps = 30", "steps = 0", "'steps' must be at least 1, got 0"),
        ("steps = 30", "steps = 30\nsetps = 1", "'setps' is not known"),
        ("train = 2, ", "", "'crops' needs 'train' and 'score'"),
        ("pixels = 64", 'pixels = "64"', "'pixels' has to be"),
        ("train = 2", "sampled = 1, train = 2", "'sampled' has to be true or false, got 1"),
        ("learning_rate = 1", "learning_rate = nan", "'learning_rate' has to be a finite number, got nan"),
        ("learning_rate = 1", "learning_rat = 1", "'learning_rat' is not known"),
        ("learning_rate = 1", "seed = 1", "'seed' is no setting of a phase"),
        ("learning_rate = 1", "teacher_weight = 0", "must not both be 0"),
        ('"none"', '"linear"', "decay"),
        ("[[phases]]", "[[phases", "Expected"),
        ("frames", "\ud800", "codec"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(ONE.replace(old, new).encode(errors="surrogatepass"))
    with pytest.raises(UserError) as caught:
        load_phases(str(tmp_path / "mine.toml"))
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'} is no recipe: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown recipe 'fsat': did you mean 'fast'\? known: .*FILE\.toml"):
        load_phases("fsat")
    with pytest.raises(UserError, match="expected --recipe to be a TOML file"):
        load_phases(str(tmp_path / "none.toml"))
