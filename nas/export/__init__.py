"""Turning a finished decoder into what a device runs, and proving on any system that it is the same decoder."""
