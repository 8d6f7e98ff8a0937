"""Autoencoders that diffusers lacks, one class per file; importing this package imports none of them."""
