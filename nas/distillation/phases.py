"""A full distillation in phases, each with its own crops, losses and learning rate, as a file says.

Such a file is TOML. Packaged ones have names:

    [[phases]]
    name = "frames"
    steps = 1000
    crops = { pixels = 64, latent_frames = 5, train = 16, score = 3, taps = 2 }
    settings = { batch_size = 1, learning_rate = 2e-3 }

`crops` are the fields of `Crops`, `settings` those of `DistillSettings`. Needs no torch.
"""

import importlib.resources
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nas.distillation.recipes import Crops, looked_at
from nas.distillation.settings import DistillSettings
from nas.machine.reading import reading
from nas.machine.records import read_fields
from nas.terminal.errors import UserError, unknown_name

_FOLDER = Path(str(importlib.resources.files("nas.assets"))) / "recipes"
_OURS = ("steps", "seed", "report_every", "checkpoint_every")
"""Settings that a phase does not set itself."""


@dataclass(frozen=True)
class Phase:
    """One stretch of a full distillation: it starts from the weights of the one before, with a schedule of its own."""

    name: str
    """What it is for, in words."""
    steps: int
    """Its length."""
    crops: Crops
    """What it trains on, and what its curve is scored on."""
    settings: dict[str, Any]
    """Fields of `DistillSettings` that are not as they are by default."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"'steps' must be at least 1, got {self.steps}")
        if not self.crops.train or not self.crops.score:
            raise ValueError("'crops' needs 'train' and 'score', crops of each clip to train and to score on")
        if ours := [name for name in _OURS if name in self.settings]:
            raise ValueError(f"'{ours[0]}' is no setting of a phase")
        read_fields(DistillSettings, {"steps": self.steps, **self.settings})

    def distillation(self, seed: int) -> DistillSettings:
        """Its settings."""
        return looked_at(read_fields(DistillSettings, {"steps": self.steps, "seed": seed, **self.settings}))


@dataclass(frozen=True)
class Phases:
    """A full distillation."""

    phases: tuple[Phase, ...]
    """What follows upon what; at least one phase, each with a name of its own."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("'phases' is empty")
        names = [phase.name for phase in self.phases]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two phases are named '{twice[0]}'")

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def check_batches(self, processes: int) -> None:
        """Refuse phases whose steps have fewer samples than there are processes to share them.

        Raises:
            UserError: a phase is such; the message names it.
        """
        for phase in self.phases:
            size = phase.distillation(0).batch_size
            if size < processes:
                raise UserError(
                    f"the phase '{phase.name}' has a batch_size of {size}, which {processes} processes cannot share: "
                    f"start fewer, or raise it in a --recipe FILE"
                )

    def scaled(self, steps: int | None) -> "Phases":
        """The same in so many steps, each phase with its share; phases that would have none are left out.

        Args:
            steps: of all phases together; None: as many as there are.
        """
        steps = steps or self.steps
        done, found = 0, []
        for phase in self.phases:
            before, done = done, done + phase.steps
            length = round(steps * done / self.steps) - round(steps * before / self.steps)
            values = {field.name: getattr(phase, field.name) for field in fields(phase)}
            found += [Phase(**values | {"steps": length})] if length else []
        return Phases(tuple(found))


def list_recipes() -> list[str]:
    """Names of the packaged files."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_phases(name: str) -> Phases:
    """The phases in a file, or those of a packaged one.

    Args:
        name: of a packaged file, or the path of one of your own, which ends in .toml.

    Raises:
        UserError: there is none of that name, or it is not as it should be; the message says where.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if name not in list_recipes():
            raise unknown_name("recipe", name, [*list_recipes(), "FILE.toml"])
        path = _FOLDER / f"{name}.toml"
    try:
        with reading(path, "expected --recipe to be a TOML file with [[phases]]"):
            text = path.read_text(encoding="utf-8-sig")
        return read_fields(Phases, tomllib.loads(text))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path} is no recipe: {error}") from error
