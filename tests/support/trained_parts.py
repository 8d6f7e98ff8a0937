"""Parts as training leaves them."""

from torch import nn

from blocks.layers.convolutions import BranchedConv
from nas.testing.block_parts import Part


def trained(part: Part) -> Part:
    """With branches that are not zero."""
    for module in part.block.modules():
        if isinstance(module, BranchedConv):
            for branch in (module.temporal, module.spatial, module.pointwise):
                nn.init.normal_(branch, std=0.1)
    return part
