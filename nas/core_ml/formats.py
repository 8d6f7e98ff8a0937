"""Number formats of a Core ML program. Needs no torch."""

from typing import Literal

Precision = Literal["float16", "mixed", "float32"]
"""Precision that a program computes in: "mixed" is float16 with the statistics of norms in float32."""

Weights = Literal["16bit", "8bit", "palettized"]
"""How weights are stored.

16bit       as the program computes: float16, or float32 where that is its precision.
8bit        int8 with one scale per output channel.
palettized  6 bits: a table of 64 values for every 16 output channels.
"""
