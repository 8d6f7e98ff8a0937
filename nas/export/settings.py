"""What a Core ML package is made for. Needs no torch."""

from dataclasses import dataclass
from typing import Literal

from nas.core_ml.formats import Precision, Weights

Rewrite = Literal["subpixel", "joined", "slices"]
"""Exact rewrites that are a choice, in the order in which they are done (`blocks.rewrites`).

subpixel  enlargements by 2 before a convolution, computed at the small size: 4/9 of the multiply-accumulates.
joined    dense 3-D convolutions over up to 3 frames as one 2-D convolution over their channels.
slices    3-D convolutions as sums of 2-D ones, one per frame.
"""

LEAST_PSNR = 40.0
"""Default of the lowest PSNR in dB against PyTorch, computed as a device rounds: after every operation."""


@dataclass(frozen=True)
class ExportSettings:
    """What a package is made for."""

    height: int = 512
    """Frame height in pixels."""
    width: int = 512
    """Frame width in pixels."""
    num_frames: int = 17
    """Frames of one decode, or of the first chunk of a stream. Every following chunk has as many latents."""
    streaming: bool = False
    """Whether clips are decoded chunk by chunk, with the state as inputs and outputs."""
    precision: Precision = "float16"
    """Precision that the program computes in."""
    weights: Weights = "16bit"
    """How weights are stored."""
    rewrites: tuple[Rewrite, ...] = ()
    """Exact rewrites that are done before the conversion."""
    least_psnr: float = LEAST_PSNR
    """Lowest PSNR in dB that the program may have against PyTorch, computed as a device rounds."""

    def describe(self) -> str:
        """The settings in words: "one decode of 17 frames at 512x512, float16, weights 16bit"."""
        form = "streaming, first chunk of" if self.streaming else "one decode of"
        frames = f"{self.num_frames} {'frame' if self.num_frames == 1 else 'frames'}"
        rewritten = f", rewritten: {', '.join(self.rewrites)}" if self.rewrites else ""
        return f"{form} {frames} at {self.height}x{self.width}, {self.precision}, weights {self.weights}{rewritten}"

    def file_name(self, usual: tuple[int, int, int] | None = None) -> str:
        """Name of the package in a model folder: decoder.mlpackage, decoder_streaming_8bit.mlpackage, ...

        Args:
            usual: height, width and frames that need no mention: those that the model was timed with. Others are part
                of the name, as in decoder_720x1280x33.mlpackage.
        """
        size = (self.height, self.width, self.num_frames)
        words = ["decoder", *["streaming"] * self.streaming, *self.rewrites]
        words += [word for word in (self.precision, self.weights) if word not in ("float16", "16bit")]
        words += ["x".join(map(str, size))] if usual not in (None, size) else []
        return f"{'_'.join(words)}.mlpackage"
