"""What of each clip is judged: frames, size, crop. Needs no torch."""

from dataclasses import dataclass

LONGEST_WHOLE = 49
"""Frames of one decode where teacher or students only decode whole clips, and no number is given."""
CHUNK = 2
"""Latent frames that are decoded at once where all of them stream."""


@dataclass(frozen=True)
class Settings:
    """What of each clip is judged, and how it is encoded."""

    frames: int | None = None
    """Frames of one decode, or the next lower number that the latents give; None: as many as there are."""
    first_only: bool = False
    """Whether only the first decode of a clip counts; else a longer clip is cut into several, one after the other."""
    short_side: int = 0
    """Pixels that the short side is resized to, bicubic with antialiasing; 0: frames are taken as they are."""
    crop: int = 0
    """Height and width of the central crop; 0: whole frames, up to the grid of the latents."""
    noise: float = 0.0
    """Noise that is added to the encoder's latents, as a share of the standard deviation of each channel."""
    seed: int = 0
    """Seed of the noise."""


PROTOCOLS = {
    "ucf101": Settings(frames=17, first_only=True, short_side=256, crop=256),
    "davis": Settings(frames=17, first_only=True, short_side=512, crop=512),
}
"""Frames, size and crop as Turbo-VAED (arXiv 2508.09136) has them: the first 17 frames, 256x256 and 512x512."""
