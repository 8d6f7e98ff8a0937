"""What ships as one decode, and so what is timed."""

from torch import Tensor, nn


class OneDecode(nn.Module):
    """A decoder as it is shipped: with frames as players show them."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor) -> Tensor:
        """The whole clip; frames limited to [-1, 1]."""
        frames: Tensor = self.decoder(latents).clamp(-1, 1)
        return frames
