"""Latency measured elsewhere: a server beside the device, a queue that survives it, a client in the search."""

TOKEN_VARIABLE = "NAS_AGENT_TOKEN"
"""Environment variable that holds the bearer token, of the agent and of its clients."""
