"""Latency measured elsewhere: a server beside the device, a queue that survives it, a client in the search."""

TOKEN_VARIABLE = "NAS_AGENT_TOKEN"
"""Environment variable that holds the bearer token, of the agent and of its clients."""

_SLOWEST_BYTES_PER_S = 250_000


def transfer_limit_s(size: int) -> float:
    """Most seconds that one request and its answer may take, for a body of `size` bytes: a minute, and its way."""
    return 60.0 + size / _SLOWEST_BYTES_PER_S
