"""The search: an Optuna study of decoders, its trials and outcomes, its folder on disk."""
