"""Names of the proposers. Imports nothing, so that `--help` can list them at once."""

PROPOSERS = ("random", "tpe", "evolution", "surrogate", "program")
"""What may propose decoders: see `nas.proposals.registry`."""

DEFAULT_PROPOSER = "surrogate"
"""The one that a search uses where nothing else is asked for."""
