"""Latency measured elsewhere: a server beside the device, a queue that survives it, a client in the search."""
