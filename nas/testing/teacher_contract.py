"""What every teacher keeps that is opened with weights, small random ones for instance.

from nas.testing import check_teacher

check_teacher(load_teacher("my_teacher", folder_with_small_weights))

docs/add_a_teacher.md has a whole example.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search_spaces import LatentSpec

if TYPE_CHECKING:
    # Importing all teachers takes seconds, which the contract of a part must not wait for.
    from nas.teachers import Teacher

Check = Callable[["Teacher"], None]

_SIZES = ((2, 2, 3), (3, 3, 2), (4, 2, 2))
"""Frames, height and width of latents."""


def random_latents(spec: LatentSpec, frames: int, height: int = 2, width: int = 3) -> Tensor:
    """Latents `(1, c, t, h, w)` with the statistics of `spec`; the same for the same arguments."""
    noise = torch.randn(1, *(spec.channels, frames, height, width), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values or (default,)) for values, default in ((spec.mean, 0.0), (spec.std, 1.0)))
    return noise * std.view(-1, 1, 1, 1) + mean.view(-1, 1, 1, 1)


def random_video(frames: int, height: int, width: int) -> Tensor:
    """Noise `(1, 3, t, h, w)` in [-1, 1]; the same for the same size."""
    return 2 * torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(0)) - 1


def check_frozen(teacher: "Teacher") -> None:
    """No parameter learns, and no module is in training mode."""
    learns = [name for name, each in teacher.model.named_parameters() if each.requires_grad]
    _expect(teacher, not learns, f"parameters learn, the first is {learns[:1]}")
    _expect(teacher, not any(module.training for module in teacher.model.modules()), "is in training mode")


def check_random_numbers(teacher: "Teacher") -> None:
    """Global random numbers are left alone, whatever is done."""
    spec, latents = teacher.spec, random_latents(teacher.spec, 2)
    video = random_video(spec.num_frames(2), 2 * spec.spatial, 2 * spec.spatial)
    uses: dict[str, Callable[[], object]] = {
        "check": teacher.check,
        "skeleton_decoding": lambda: teacher.skeleton_decoding()(latents.to("meta")),
        "decode": lambda: teacher.decode(latents),
        "features": lambda: teacher.features(latents, teacher.tap_names[:1]),
        "encode": lambda: teacher.encode(video),
        "encode with a generator": lambda: teacher.encode(video, torch.Generator().manual_seed(0)),
    }
    for name, use in uses.items():
        torch.manual_seed(17)
        before = torch.get_rng_state()
        use()
        _expect(teacher, torch.equal(torch.get_rng_state(), before), f"{name} draws from the global random numbers")


def check_round_trip(teacher: "Teacher") -> None:
    """Videos go to latents and back in the geometry of `spec`, to finite frames in [-1, 1], always the same ones."""
    spec = teacher.spec
    for size in _SIZES:
        video = random_video(spec.num_frames(size[0]), size[1] * spec.spatial, size[2] * spec.spatial)
        latents = teacher.encode(video)
        wanted = (1, spec.channels, *size)
        _expect(teacher, tuple(latents.shape) == wanted, f"encodes to {tuple(latents.shape)}, not {wanted}")
        _expect(teacher, (1, *spec.latent_shape(*video.shape[2:])) == wanted, "has a spec of other latents")
        _expect(teacher, torch.equal(teacher.encode(video), latents), "encodes to a sample, not to the mode")
        frames = teacher.decode(latents)
        _expect(teacher, frames.shape == video.shape, f"decodes to {tuple(frames.shape)}, not {tuple(video.shape)}")
        _expect(teacher, frames.dtype == torch.float32, f"decodes to {frames.dtype}")
        _expect(teacher, bool(frames.isfinite().all()), "decodes to values that are not finite")
        _expect(teacher, -1 <= float(frames.min()) < float(frames.max()) <= 1, "decodes to values beyond [-1, 1]")
        _expect(teacher, torch.equal(teacher.decode(latents), frames), "decodes the same latents to other frames")


def check_frames(teacher: "Teacher") -> None:
    """n latent frames become as many frames as `spec` says, from the fewest on; what is off the grid is refused."""
    spec = teacher.spec
    for count in range(teacher.least_latents, teacher.least_latents + 4):
        found = tuple(teacher.decode(random_latents(spec, count, 2, 3)).shape)
        wanted = (1, 3, spec.num_frames(count), 2 * spec.spatial, 3 * spec.spatial)
        _expect(teacher, found == wanted, f"decodes {count} latent frames to {found}, not {wanted}")
    valid = {spec.num_frames(count) for count in range(1, 9)}
    between = [count for count in range(1, spec.num_frames(4)) if count not in valid]
    sizes = [(count, spec.spatial, spec.spatial) for count in between[:1]]
    if spec.spatial > 1:
        sizes.append((spec.num_frames(2), spec.spatial + 1, spec.spatial))
    for size in sizes:
        try:
            teacher.encode(random_video(*size))
        except ValueError:
            continue
        _expect(teacher, False, f"encodes {size}, which is not on the grid of its latents, instead of a ValueError")


def check_statistics(teacher: "Teacher") -> None:
    """Geometry and statistics, which `LatentSpec` checks, are the same when they are asked for again."""
    _expect(teacher, teacher.spec == teacher.spec, "has another spec when it is asked again")


def check_taps(teacher: "Teacher") -> None:
    """Features are on the grids that the taps declare, and the same ones where the decode stops behind them."""
    spec, names = teacher.spec, teacher.tap_names
    _expect(
        teacher, len(set(names)) == len(names) >= 2, f"has the taps {names}, at least two different ones are needed"
    )
    _expect(teacher, tuple(teacher.taps) == names, f"has the taps {names}, but describes {tuple(teacher.taps)}")
    frames, height, width = _SIZES[1]
    latents = random_latents(spec, frames, height, width)
    _, whole = teacher.decode_with_features(latents, names)
    single = int(spec.drops_leading(frames))
    for name, tap in teacher.taps.items():
        grid = (frames - single) * tap.temporal + single, tap.spatial * height, tap.spatial * width
        found, wanted = tuple(whole[name].shape), (1, tap.channels, *grid)
        _expect(teacher, found == wanted, f"has features {found} at {name}, not {wanted}")
        _expect(teacher, bool(whole[name].isfinite().all()), f"has features at {name} that are not finite")
    for count in range(1, len(names) + 1):
        stopped = teacher.features(latents, names[:count])
        same = all(torch.equal(stopped[name], whole[name]) for name in names[:count])
        _expect(teacher, same, f"has other features when decoding stops after {names[count - 1]}")


def check_images(teacher: "Teacher") -> None:
    """Where the latents have no time, frame by frame equals the clip, encoded and decoded."""
    spec = teacher.spec
    if spec.temporal > 1:
        return
    video, latents = random_video(3, 2 * spec.spatial, 2 * spec.spatial), random_latents(spec, 3)
    for word, use, clip in (("encodes", teacher.encode, video), ("decodes", teacher.decode, latents)):
        whole = use(clip)
        apart = torch.cat([use(frame) for frame in torch.split(clip, 1, dim=2)], dim=2)
        error = float((whole - apart).abs().max()) / (1 + float(whole.abs().max()))
        _expect(teacher, error < 1e-4, f"{word} a frame in a clip to something else than the frame alone")


def check_batch_independence(teacher: "Teacher") -> None:
    """Members of a batch do not mix, in any of the three uses."""
    latents, taps = random_latents(teacher.spec, 2), teacher.tap_names[:2]
    both = torch.cat([latents, latents.flip(4)])
    frames, features = teacher.decode_with_features(both, taps)
    videos = torch.cat([random_video(frames.shape[2], *frames.shape[3:]), frames[:1]])
    encoded = teacher.encode(videos)
    for index, one in enumerate(torch.split(both, 1)):
        alone, features_alone = teacher.decode_with_features(one, taps)
        _expect(teacher, torch.equal(frames[index], alone[0]), "decodes a member of a batch to other frames")
        same = all(torch.equal(features[tap][index], features_alone[tap][0]) for tap in taps)
        _expect(teacher, same, "has other features for a member of a batch")
        encoded_alone = teacher.encode(videos[index : index + 1])[0]
        _expect(teacher, torch.equal(encoded[index], encoded_alone), "encodes a member of a batch to other latents")
    found = teacher.features(both, taps)
    same = all(torch.equal(features[tap], found[tap]) for tap in taps)
    _expect(teacher, same, "has other features when decoding stops after the last tap")
    _expect(teacher, float((frames[0] - frames[1]).abs().max()) > 0.05, "decodes other latents to the same frames")


TEACHER_CHECKS: dict[str, Check] = {
    "statistics": check_statistics,
    "frozen": check_frozen,
    "frames": check_frames,
    "round_trip": check_round_trip,
    "images": check_images,
    "taps": check_taps,
    "random_numbers": check_random_numbers,
    "batch_independence": check_batch_independence,
}
"""Every check of a teacher by its name."""


@torch.no_grad()
def check_teacher(teacher: "Teacher") -> None:
    """Run every check of a teacher.

    Raises:
        AssertionError: a promise is broken; names the teacher and what is wrong.
    """
    for check in TEACHER_CHECKS.values():
        check(teacher)


def _expect(teacher: "Teacher", kept: bool, broken: str) -> None:
    if not kept:
        raise AssertionError(f"teacher '{teacher.name}' {broken}")
