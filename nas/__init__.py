"""Architecture search, distillation and evaluation of small decoders for the latents of a frozen video VAE."""

__version__ = "0.1.0"
