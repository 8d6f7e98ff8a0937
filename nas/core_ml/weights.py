"""Weights of a Core ML program in fewer bits."""

from typing import TYPE_CHECKING, cast

from nas.core_ml.coremltools_package import quiet_coremltools
from nas.core_ml.formats import Weights

if TYPE_CHECKING:
    from coremltools.models import MLModel

_TABLE_BITS, _CHANNELS_PER_TABLE = 6, 16
"""Bits of an index into a table of a palettized weight, and output channels that share one table."""


def compress(model: "MLModel", weights: Weights) -> "MLModel":
    """The same program with its larger weights (2048 values and more) stored in another way."""
    if weights == "16bit":
        return model
    with quiet_coremltools() as ct:
        coreml = ct.optimize.coreml
        if weights == "8bit":
            linear = coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
            config = coreml.OptimizationConfig(global_config=linear)
            return cast("MLModel", coreml.linear_quantize_weights(model, config))
        table = coreml.OpPalettizerConfig(
            mode="uniform", nbits=_TABLE_BITS, granularity="per_grouped_channel", group_size=_CHANNELS_PER_TABLE
        )
        config = coreml.OptimizationConfig(global_config=table)
        return cast("MLModel", coreml.palettize_weights(model, config))
