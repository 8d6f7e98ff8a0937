"""Modules to count and to convert."""

from collections.abc import Callable

from torch import Tensor, nn


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """`function(x)`."""
        return self.function(x)
