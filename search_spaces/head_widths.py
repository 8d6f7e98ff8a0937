"""HeadWidths: which widths of the last stage fit a head."""

from dataclasses import dataclass
from typing import Self

from blocks import get_block


@dataclass(frozen=True)
class HeadWidths:
    """The widths that a part takes."""

    multiple: int = 1
    """The width is a multiple of this."""
    least: int = 1
    """The width is not below this."""

    @classmethod
    def before(cls, head: str, spatial_factor: int) -> Self:
        """What a registered head declares for the factor by which it upsamples."""
        part = get_block(head)
        return cls(part.width_multiple(spatial_factor), part.least_width(spatial_factor))

    def fit(self, width: int) -> int:
        """The narrowest width from `width` up that fits."""
        wide = max(width, self.least)
        return wide + -wide % self.multiple


ANY_WIDTH = HeadWidths()
"""What stages that no head follows may have."""
