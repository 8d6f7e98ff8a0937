"""Latency measured elsewhere: a server beside the device, a queue that survives it, a client in the search."""

TOKEN_VARIABLE = "NAS_AGENT_TOKEN"
"""Environment variable with the bearer token, on either side."""
