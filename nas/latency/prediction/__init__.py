"""Latency predicted: the operations that a decoder executes, and what a device's profile charges for them."""
