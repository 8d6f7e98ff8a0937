"""Where training begins: everything about the weights of a student that needs no gradient."""

import torch

from nas.data.targets import Samples
from search_spaces import Decoder, DecoderConfig
from search_spaces.decoder import silence

_FIT_SAMPLES = 128
"""Samples that the shortcut is fitted to: a linear map has few weights."""


def build(config: DecoderConfig, seed: int) -> Decoder:
    """A fresh decoder on the CPU; the same weights for the same seed."""
    torch.manual_seed(seed)
    return Decoder(config)


def initialise(decoder: Decoder, split: Samples) -> None:
    """Fold the latents' statistics into the stem; fit the shortcut, if there is one, and begin with it alone.

    Args:
        decoder: with fresh weights; changed in place.
        split: what it will be trained on.
    """
    decoder.initialise_from_latent_statistics()
    if decoder.shortcut is None:
        return
    spec = decoder.config.latents
    batches = (split.batch([index]) for index in split.some(_FIT_SAMPLES))
    samples = [(batch.latents, batch.frames) for batch in batches]
    decoder.shortcut.fit(samples, drops_leading=spec.drops_leading(samples[0][0].shape[2]))
    silence(decoder.head)
