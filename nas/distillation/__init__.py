"""Distillation: the one training loop, its losses and schedule, and the recipes of a search and of finalize."""
