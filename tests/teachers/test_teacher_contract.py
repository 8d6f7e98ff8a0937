"""What every teacher has to keep, over all of them: small instances of the real classes with random weights."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.distillation.losses import match_taps
from nas.machine import fast_convolutions
from nas.teachers import Teacher, list_releases, load_teacher
from nas.terminal.errors import UserError
from nas.testing import TEACHER_CHECKS
from search_spaces import PRESETS, Decoder, DecoderConfig, adapt
from tests.support.small_teachers import (
    IN_PIECES,
    OTHER_CHANNELS,
    open_original,
    random_latents,
    random_video,
)

RELEASES = {release.name: release for release in list_releases()}

FRAMES = {
    **dict.fromkeys(("hunyuan", "hunyuan1.5", "wan", "wan-tiny", "wan2.2"), (5, 9, 13)),
    "cogvideox": (8, 9, 16),
    "cosmos": (9, 17, 25),
    "ltx": (9, 17, 25),
    "ltx2": (9, 17, 25),
    "mochi": (7, 13, 19),
    "video-dc-ae": (8, 12, 16),
}
"""What 2, 3 and 4 latent frames decode to; of other teachers, what they declare."""

OFF_GRID = {
    4: (6, "5 and 9"),
    6: (8, "7 and 13"),
    8: (10, "9 and 17"),
    "cogvideox": (6, "8 and 9"),
    "video-dc-ae": (9, "8 and 12"),
}
"""By compression in time or name: a count that no latents decode to, and the nearest that some do."""


def modules_of(teacher: Teacher) -> list[tuple[str, int]]:
    return [(name, id(module)) for name, module in teacher.model.named_modules()]


def frames_of(teacher: Teacher, num_latents: int) -> int:
    known = FRAMES.get(teacher.name)
    return known[num_latents - 2] if known else teacher.spec.num_frames(num_latents)


def test_geometry_is_the_published_one(teacher: Teacher) -> None:
    published = RELEASES[teacher.name].latents
    channels = OTHER_CHANNELS.get(teacher.name, published.channels)
    assert replace(teacher.spec, mean=(), std=()) == replace(published, channels=channels)
    assert all(teacher.spec.num_frames(count) == frames_of(teacher, count) for count in (2, 3, 4))


def test_the_model_is_loaded_late_and_frozen(teacher: Teacher, folder_of: Callable[[str], Path]) -> None:
    fresh = load_teacher(teacher.name, folder_of(teacher.name))
    assert fresh.describe() and fresh.taps and fresh.spec and len(fresh.weights_hash) == 64
    assert fresh.decoder_parameters == sum(
        each.numel() for each in fresh.skeleton.get_submodule("decoder").parameters()
    )
    assert fresh.skeleton_decoding()(random_latents(fresh.spec, 2).to("meta")).is_meta
    assert all(tensor.is_meta for tensor in (*fresh.skeleton.parameters(), *fresh.skeleton.buffers()))
    assert fresh.memory(frames_of(teacher, 2), 2 * teacher.spec.spatial, 2 * teacher.spec.spatial) > 0
    assert "model" not in vars(fresh)
    tensors = [*teacher.model.parameters(), *teacher.model.buffers()]
    assert {(tensor.device.type, tensor.requires_grad) for tensor in tensors} == {("cpu", False)}
    assert {parameter.dtype for parameter in teacher.model.parameters()} == {torch.float32}
    assert not any(module.training for module in teacher.model.modules())


@pytest.mark.parametrize("check", TEACHER_CHECKS)
def test_contract(check: str, teacher: Teacher) -> None:
    TEACHER_CHECKS[check](teacher)


@pytest.mark.parametrize("by_frames", [False, True], ids=["plain", "fast convolutions"])
def test_encoding_and_decoding_are_those_of_the_class(
    by_frames: bool, teacher: Teacher, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_convolutions, "has_onednn", lambda _: by_frames)
    original = open_original(teacher.name, folder_of(teacher.name))
    video = random_video(frames_of(teacher, 3), 2 * teacher.spec.spatial, 3 * teacher.spec.spatial)
    images = teacher.spec.temporal == 1  # the class takes them as a batch

    def of_class(clip: Tensor) -> Tensor:
        return clip[0].transpose(0, 1) if images else clip

    def of_clip(found: Tensor) -> Tensor:
        return found.transpose(0, 1)[None] if images else found

    encoded: Any = original.encode(of_class(video))
    latents = of_clip(encoded.latent if teacher.name == "video-dc-ae" else encoded.latent_dist.mode())
    reordered = 5e-5
    assert torch.allclose(teacher.encode(video), latents, rtol=reordered * by_frames, atol=reordered * by_frames)
    decoded: Tensor = of_clip(original.decode(of_class(latents)).sample)
    # Mochi's decodes in pieces here, which leaves the order of additions to the library.
    in_pieces = 1e-5 if teacher.name == "mochi" else 0.0
    assert torch.allclose(
        teacher.decode(latents), decoded.clamp(-1, 1), rtol=0, atol=max(in_pieces, reordered * by_frames)
    )
    assert torch.allclose(teacher.decoding()(latents), decoded, rtol=0, atol=in_pieces)


def test_off_the_grid_the_nearest_are_named(teacher: Teacher) -> None:
    spec = teacher.spec
    frames, near = OFF_GRID.get(teacher.name) or OFF_GRID.get(spec.temporal) or (None, None)
    space, valid = spec.spatial, frames_of(teacher, 2)
    for shape, message in (
        *(
            [((frames, space, space), f"{frames} frames do not fit .* nearest valid counts are {near}")]
            if frames is not None
            else []
        ),
        (
            (valid, space + 1, space),
            f"height must be a multiple of {space}, got {space + 1}: .* {space} and {2 * space}",
        ),
        ((valid, space, space // 2), f"width must be a multiple of {space}, got {space // 2}: .* {space} and"),
    ):
        with pytest.raises(ValueError, match=message):
            teacher.encode(torch.zeros(1, 3, *shape))


def test_latents_of_another_width_are_refused(teacher: Teacher) -> None:
    right, taps = teacher.spec.channels, teacher.tap_names[:1]
    for channels in (1, right - 1, right + 1, 2 * right):
        message = rf"^latents of {teacher.name} have {right} channels, .* got \(1, {channels}, 2, 2, 2\): give .*$"
        for use in (teacher.decode, lambda latents: teacher.features(latents, taps)):
            with pytest.raises(UserError, match=message):
                use(torch.zeros(1, channels, 2, 2, 2))
    with pytest.raises(UserError, match=f"have {right} channels"):
        teacher.decode(torch.zeros(right, 2, 2, 2))


def test_no_taps_are_no_work(teacher: Teacher) -> None:
    ran: list[nn.Module] = []
    handle = teacher.model.get_submodule("decoder").register_forward_hook(lambda module, *_: ran.append(module))
    assert teacher.features(random_latents(teacher.spec, 2), ()) == {} and ran == []
    handle.remove()


@pytest.mark.parametrize("size", [(2, 2, 3), (3, 3, 2), (4, 2, 2)])
def test_taps_say_what_the_features_are(size: tuple[int, int, int], teacher: Teacher) -> None:
    t, h, w = size
    names = teacher.tap_names
    features = teacher.features(random_latents(teacher.spec, *size), names)
    assert len(set(names)) == len(names) >= 2 and tuple(teacher.taps) == names == tuple(features)
    single = teacher.spec.num_frames(t) < teacher.spec.temporal * t
    for name, tap in teacher.taps.items():
        grid = ((t - single) * tap.temporal + single, tap.spatial * h, tap.spatial * w)
        assert features[name].shape == (1, tap.channels, *grid), name
        assert bool(features[name].isfinite().all()) and float(features[name].std()) > 0, name
    grids = [(tap.temporal, tap.spatial) for tap in teacher.taps.values()]
    assert grids[0] == (1, 1) and grids == sorted(grids)
    assert teacher.spec.temporal % grids[-1][0] == 0 and teacher.spec.spatial % grids[-1][1] == 0


def with_temporal_stages(config: DecoderConfig, layout: tuple[int, ...]) -> DecoderConfig:
    """The same decoder whose upsampling stages `layout` (1 is the first) refine time."""
    factors = dict(zip(layout, config.latents.temporal_steps, strict=True))
    stages = [replace(stage, temporal_factor=factors.get(index, 1)) for index, stage in enumerate(config.stages)]
    return replace(config, stages=tuple(stages))


def test_students_have_features_on_the_same_grids(teacher: Teacher) -> None:
    """The published design misses what is finer than its stages, and where the teacher refines space before time."""
    config = adapt(PRESETS["turbo_vaed_hunyuan"], teacher.spec, 32)
    layouts = combinations(range(1, len(config.stages)), len(teacher.spec.temporal_steps))
    configs = [with_temporal_stages(config, layout) for layout in layouts]
    with torch.device("meta"):
        published, *others = (Decoder(each) for each in (config, *configs))
    finest = published.stage_grid(len(config.stages) - 1)[1]
    finer = tuple(name for name, tap in teacher.taps.items() if tap.spatial > finest)
    early = ("up_blocks.0", "up_blocks.1") if teacher.name == "hunyuan" else ()
    assert set(match_taps(published, teacher.taps)[1]) == {*finer, *early}
    found = [match_taps(student, teacher.taps) for student in others]
    best, (stages, missed) = min(zip(configs, found, strict=True), key=lambda pair: len(pair[1][1]))
    assert missed == finer
    student = Decoder(best)
    for num_latents in (2, 3):
        latents = random_latents(teacher.spec, num_latents)
        frames, mine = student.features(latents, sorted(set(stages.values())))
        wanted = teacher.features(latents, tuple(stages))
        for name, stage in stages.items():
            assert mine[stage].shape[2:] == wanted[name].shape[2:], name
        assert frames.shape == teacher.decode(latents).shape


def test_truncated_features_equal_full_ones(teacher: Teacher) -> None:
    for num_latents in (2, 3):
        latents = random_latents(teacher.spec, num_latents)
        frames, full = teacher.decode_with_features(latents, teacher.tap_names)
        for count in range(1, len(teacher.tap_names) + 1):
            first = teacher.tap_names[:count]
            found = teacher.features(latents, first)
            assert tuple(found) == first
            assert all(torch.equal(found[name], full[name]) for name in first), count
            assert torch.equal(teacher.features(latents, first[-1:])[first[-1]], full[first[-1]])
        assert torch.equal(teacher.decode(latents), frames), "the model is as it was"


def test_what_comes_after_the_last_tap_is_not_run(teacher: Teacher) -> None:
    ran: list[str] = []
    decoder = teacher.model.get_submodule("decoder")
    order = [*teacher.tap_names, *teacher.head]
    handles = [
        decoder.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name)) for name in order
    ]
    try:
        for count in range(1, len(teacher.tap_names) + 1):
            ran.clear()
            teacher.features(random_latents(teacher.spec, 2), teacher.tap_names[:count])
            assert set(ran) == set(order[:count])
    finally:
        for handle in handles:
            handle.remove()


def test_an_error_on_the_way_leaves_the_model_as_it_was(teacher: Teacher) -> None:
    latents = random_latents(teacher.spec, 4)
    before, frames, first = modules_of(teacher), teacher.decode(latents), teacher.tap_names[0]
    calls: list[nn.Module] = []

    def stumble(module: nn.Module, *_: Any) -> None:
        calls.append(module)
        # In a model that decodes in pieces, with the caches of the first one filled.
        if len(calls) == (2 if teacher.name in IN_PIECES else 1):
            raise ArithmeticError("on purpose")

    handle = teacher.find_tap(teacher.model, first).register_forward_hook(stumble)
    try:
        with pytest.raises(ArithmeticError, match="on purpose"):
            teacher.features(latents, (first,))
    finally:
        handle.remove()
    assert modules_of(teacher) == before
    assert not any(module._forward_hooks for module in teacher.model.modules())
    assert torch.equal(teacher.decode(latents), frames)
