"""Latency measured: on this machine, on a Mac, on an iPhone."""
