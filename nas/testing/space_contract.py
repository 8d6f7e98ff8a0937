"""The contract that every search space keeps, for the latents of every teacher.

from nas.testing import check_space

check_space(MY_SPACE)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from search_spaces import DecoderConfig, LatentSpec, SearchSpace, build_skeleton
from search_spaces.choices import RandomChooser

Check = Callable[[SearchSpace, LatentSpec], None]

LATENTS = {
    "16ch-4x8x8-leading": LatentSpec(channels=16, spatial=8, temporal=4),
    "16ch-4x8x8-leading_if_odd": LatentSpec(channels=16, spatial=8, temporal=4, frame_rule="leading_if_odd"),
    "12ch-6x8x8-leading": LatentSpec(channels=12, spatial=8, temporal=6),
    "48ch-4x16x16-leading": LatentSpec(channels=48, spatial=16, temporal=4),
    "128ch-4x32x32-multiple": LatentSpec(channels=128, spatial=32, temporal=4, frame_rule="multiple", causal=False),
    "128ch-8x32x32-leading": LatentSpec(channels=128, spatial=32, temporal=8, causal=False),
    "16ch-8x8x8-leading": LatentSpec(channels=16, spatial=8, temporal=8),
    "4ch-1x8x8": LatentSpec(channels=4, spatial=8, temporal=1),
    "4ch-2x2x2": LatentSpec(channels=4, spatial=2, temporal=2),
}
"""Geometries of the latents of all teachers, and two more."""


class Dice(RandomChooser):
    """A chooser that decides at random, and sees that choices are offered as they should be."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`; AssertionError if there is none, or one twice."""
        if not len(choices) == len(set(choices)) > 0:
            raise AssertionError(f"{name} offers {choices}")
        return super().suggest_categorical(name, choices)


class Given:
    """A chooser that follows given parameters and notes which it was asked for."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.asked: list[str] = []

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """The given one."""
        if name not in self.params or self.params[name] not in choices:
            raise AssertionError(f"{name} = {self.params.get(name)!r}, but it offers {choices}")
        self.asked.append(name)
        return self.params[name]


def check_walks(space: SearchSpace, latents: LatentSpec) -> None:
    """150 random walks give decoders for these latents, and their configs come back equal from JSON."""
    for config in random_walks(space, latents, 150):
        _expect(space, config, config.latents == latents, "is for other latents")
        mode = "causal" if latents.causal else "bidirectional"
        _expect(space, config, config.temporal_mode == mode, f"is {config.temporal_mode}, not {mode}")
        _expect(space, config, config.head_factor <= space.largest_head_factor, "leaves too much to the head")
        factors = {stage.spatial_factor for stage in config.stages}
        _expect(space, config, factors <= {1, 2}, f"has stages that enlarge by {sorted(factors)}")
        _expect(space, config, DecoderConfig.from_dict(config.to_dict()) == config, "came back changed from JSON")


@torch.no_grad()
def check_geometry(space: SearchSpace, latents: LatentSpec) -> None:
    """8 random walks build, and give the number and size of frames that the teacher gives."""
    for config in random_walks(space, latents, 8):
        got = tuple(build_skeleton(config)(torch.empty(2, latents.channels, 3, 2, 3, device="meta")).shape)
        wanted = (2, 3, latents.num_frames(3), 2 * latents.spatial, 3 * latents.spatial)
        _expect(space, config, got == wanted, f"gives frames {got}, not {wanted}")


def check_parameters(space: SearchSpace, latents: LatentSpec) -> None:
    """`params` and `suggest` are inverse to each other: in the order of the walk, each once, nothing more."""
    for config in random_walks(space, latents, 50):
        chooser = Given(space.params(config))
        _expect(space, config, space.suggest(chooser, latents) == config, "is another decoder by its own parameters")
        _expect(space, config, chooser.asked == list(chooser.params), "has parameters that the walk does not ask for")


SPACE_CHECKS: dict[str, Check] = {"walks": check_walks, "geometry": check_geometry, "parameters": check_parameters}
"""Every check of a search space by its name."""


def check_space(space: SearchSpace, latents: Iterable[LatentSpec] = tuple(LATENTS.values())) -> None:
    """Run every check of a search space.

    Args:
        space: registered or not.
        latents: what decoders are proposed for; leave out those that the space has no room for.

    Raises:
        AssertionError: a promise is broken; names the space, the decoder, and what is wrong.
    """
    if not space.description or "\n" in space.description:
        raise AssertionError(f"space '{space.name}': expected a description of one line, got {space.description!r}")
    for each in latents:
        for check in SPACE_CHECKS.values():
            check(space, each)


def random_walks(space: SearchSpace, latents: LatentSpec, count: int) -> Iterator[DecoderConfig]:
    """Decoders of the seeds 0, 1, ..."""
    for seed in range(count):
        yield space.suggest(Dice(seed), latents)


def _expect(space: SearchSpace, config: DecoderConfig, kept: bool, broken: str) -> None:
    if not kept:
        raise AssertionError(f"space '{space.name}': {config.summary()} {broken}")
