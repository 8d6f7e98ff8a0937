"""A teacher and its students on the same clips or latents, side by side."""
