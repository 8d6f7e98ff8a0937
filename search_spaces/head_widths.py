"""HeadWidths: which widths of the last stage fit a head."""

from dataclasses import dataclass
from typing import Self

from blocks import get_block


@dataclass(frozen=True)
class HeadWidths:
    """The widths, in channels, that a head takes from the stage before it."""

    multiple: int = 1
    """Number of channels that the width is a multiple of."""
    least: int = 1
    """Smallest width."""

    @classmethod
    def before(cls, head: str, spatial_factor: int) -> Self:
        """The widths that a registered head declares for the factor by which it upsamples."""
        part = get_block(head)
        return cls(part.width_multiple(spatial_factor), part.least_width(spatial_factor))

    def fit(self, width: int) -> int:
        """The narrowest width from `width` up that fits."""
        wide = max(width, self.least)
        return wide + -wide % self.multiple


ANY_WIDTH = HeadWidths()
"""The widths of a stage that no head follows: all."""
