"""The published teachers at full size, on the meta device: nothing of it takes memory or weights."""

from dataclasses import replace
from pathlib import Path

import pytest

from nas.teachers import Teacher, list_releases, load_teacher, without_weights
from nas.teachers.__main__ import _costs
from tests.support.small_teachers import CONFIGS, make_weights, random_latents

TEACHERS_PAGE = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text()
RELEASES = {release.name: release for release in list_releases()}

PARAMETERS = {
    "cogvideox": 123_368_451,
    "cosmos": 62_738_560,
    "hunyuan": 146_136_067,
    "hunyuan1.5": 871_309_571,
    "ltx": 238_789_296,
    "ltx2": 528_380_720,
    "mochi": 362_526_595,
    "video-dc-ae": 239_022_211,
    "wan": 73_295_331,
    "wan-tiny": 1_550_739,
    "wan2.2": 555_049_228,
}
"""Of the decoders; that of other teachers is counted."""

TAP_CHANNELS = {
    "cogvideox": (512, 512, 256, 256, 128),
    "hunyuan": (512, 512, 512, 256, 128),
    "ltx": (512, 512, 512, 256, 128),
    "wan": (384, 192, 192, 96, 96),
    "wan2.2": (1024, 1024, 1024, 512, 256),
}
"""From the widths in the configurations."""


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_a_release_says_how_large_its_decoder_is(name: str) -> None:
    """Also one that nothing else here knows."""
    assert without_weights(RELEASES[name]).decoder_parameters == RELEASES[name].decoder_parameters


@pytest.fixture(params=sorted(PARAMETERS))
def full_size(request: pytest.FixtureRequest) -> Teacher:
    """Each of the teachers that are known here in turn."""
    return without_weights(RELEASES[request.param])


def test_every_published_teacher_is_listed() -> None:
    assert set(PARAMETERS) <= set(RELEASES) and set(PARAMETERS) <= set(CONFIGS) <= set(RELEASES)


def test_decoders_have_their_published_size(full_size: Teacher) -> None:
    assert full_size.decoder_parameters == PARAMETERS[full_size.name]
    assert RELEASES[full_size.name].decoder_parameters == PARAMETERS[full_size.name]
    assert all(parameter.is_meta for parameter in full_size.skeleton.parameters())
    assert full_size.class_name == CONFIGS[full_size.name][0] == type(full_size.skeleton).__name__


def test_where_a_configuration_is_not_the_default_the_table_says_so(full_size: Teacher) -> None:
    release = RELEASES[full_size.name]
    assert release.note or not release.config
    assert {name for name in ("cogvideox", "ltx2", "wan2.2") if RELEASES[name].note} == {"cogvideox", "ltx2", "wan2.2"}


def test_statistics_are_the_published_ones(full_size: Teacher) -> None:
    """Mean and standard deviation of the first and last channel; LTX-Video's lie in the weights."""
    first_and_last = {
        "wan": ((-0.7571, 2.8184), (-0.2921, 1.9160)),
        "wan2.2": ((-0.2289, 0.4765), (-0.0667, 0.7744)),
        "mochi": ((-0.06730895953510081, 0.9263795028493863), (-0.0321993391887285, 0.9274757570805041)),
    }
    scaled = {"hunyuan": 0.476986, "hunyuan1.5": 1.03682, "cogvideox": 0.7}
    spec = full_size.spec
    if full_size.name in first_and_last:
        assert tuple((spec.mean[at], spec.std[at]) for at in (0, -1)) == first_and_last[full_size.name]
    elif full_size.name in scaled:
        assert spec.mean == () and spec.std == pytest.approx((1 / scaled[full_size.name],) * spec.channels)
    elif full_size.name in ("ltx", "ltx2", "video-dc-ae"):
        assert spec.mean == spec.std == ()
    else:
        assert len(spec.mean) == len(spec.std) == spec.channels


def test_the_readme_says_what_is_declared(full_size: Teacher) -> None:
    """Of every teacher that was published: size, frame rule, source and licence, and precision on a GPU."""
    release = RELEASES[full_size.name]
    rows = [line for line in TEACHERS_PAGE.splitlines() if line.startswith(f"| `{release.name}` |")]
    if release.embedded is None:
        what, takes = rows
        latents = release.latents
        geometry = (
            f"{latents.channels}, {latents.temporal}x{latents.spatial}x{latents.spatial} | {latents.frames_formula()}"
        )
        assert what.startswith(f"| `{release.name}` | {geometry}") and what.endswith(f" | {release.licence} |")
        assert f" | {release.decoder_parameters:,} | {release.repository}" in what
        assert takes.endswith(f" | {str(full_size.gpu_dtype).removeprefix('torch.')} |")


@pytest.mark.slow
def test_the_readme_says_what_the_command_says(full_size: Teacher) -> None:
    """Multiply-accumulates, the share of features, and memory, of `python -m nas.teachers --costs`."""
    release = RELEASES[full_size.name]
    rows = [line for line in TEACHERS_PAGE.splitlines() if line.startswith(f"| `{release.name}` |")]
    _, macs, _, share, memory = _costs(release)
    if release.embedded is None:
        assert rows[1].startswith(f"| `{release.name}` | {macs} | {share} | ") and f" | {memory} | " in rows[1]


def test_wan22_is_configured_as_published() -> None:
    published = {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "is_residual": True,
        "patch_size": 2,
        "in_channels": 12,
        "out_channels": 12,
    }
    assert published.items() <= RELEASES["wan2.2"].config.items()


def test_frames_and_taps_are_those_of_the_small_instances(full_size: Teacher, tmp_path: Path) -> None:
    """The small ones stand for the published ones: same class, same grids, same stages."""
    small = load_teacher(full_size.name, make_weights(full_size.name, tmp_path / "small"))
    teacher, latents = full_size, RELEASES[full_size.name].latents
    assert replace(teacher.spec, mean=(), std=()) == latents
    frames = teacher.skeleton_decoding()(random_latents(latents, 2, 2, 3).to("meta"))
    assert frames.shape == (1, 3, latents.num_frames(2), 2 * latents.spatial, 3 * latents.spatial)
    grids = {name: (tap.temporal, tap.spatial) for name, tap in teacher.taps.items()}
    assert grids == {name: (tap.temporal, tap.spatial) for name, tap in small.taps.items()}
    if teacher.name in TAP_CHANNELS:
        assert tuple(tap.channels for tap in teacher.taps.values()) == TAP_CHANNELS[teacher.name]
