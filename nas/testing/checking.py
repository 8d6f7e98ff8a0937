"""What turns a promise of a part into a check: a function of its config that raises AssertionError."""

import functools
from collections.abc import Callable, Iterable

from blocks import BlockConfig
from nas.terminal.extras import missing_extra
from nas.testing.block_parts import Part, general_part, parts

Check = Callable[[BlockConfig], None]


def in_every_geometry(check: Callable[[Part], None]) -> Check:
    """A check of a part as one of its config, run in every geometry of its role, on a block in training mode."""
    return _over(parts, check)


def in_one_geometry(check: Callable[[Part], None]) -> Check:
    """The same in the most general geometry only."""
    return _over(lambda config: [general_part(config)], check)


def _over(geometries: Callable[[BlockConfig], Iterable[Part]], check: Callable[[Part], None]) -> Check:
    @functools.wraps(check)
    def checked(config: BlockConfig) -> None:
        for part in geometries(config):
            _run_check(check, part)

    return checked


def _run_check(check: Callable[[Part], None], part: Part) -> None:
    try:
        check(part)
    except AssertionError:
        raise
    except ModuleNotFoundError as error:
        error.add_note(missing_extra(error) or "")
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        raise AssertionError(f"{part}: {check.__name__}: {text}") from error
