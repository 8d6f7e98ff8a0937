"""Which decoder a study looks at next: proposers, each an Optuna sampler that decides on a whole decoder at once."""
