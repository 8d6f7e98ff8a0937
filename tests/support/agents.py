"""Starts real measuring agents for tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from search_spaces import PRESETS, DecoderConfig, adapt

TOKEN = "a-token-for-tests"
ROOT = Path(__file__).parents[2]

_COG = PRESETS["turbo_vaed_cog"]
QUICK = adapt(_COG, _COG.latents, 16)
"""A decoder that takes milliseconds at `SMALL`."""
SMALL = {"height": 16, "width": 16, "frames": 1}


@dataclass(frozen=True)
class RunningAgent:
    """A server process."""

    process: "subprocess.Popen[str]"
    address: str

    def request(self, method: str, path: str, token: str | None = TOKEN, **arguments: Any) -> requests.Response:
        """One request, without a proxy."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers |= arguments.pop("headers", {})
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.address + path, headers=headers, timeout=60, **arguments)


@contextmanager
def running_agent(folder: Path, *arguments: str, port: int = 0) -> Iterator[RunningAgent]:
    """`python -m nas.latency serve` until the end of the `with`, then killed."""
    environment = os.environ | {"NAS_AGENT_TOKEN": TOKEN, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nas.latency", "serve", "--port", str(port), "--folder", str(folder), *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline().split()
            assert first[:1] == ["agent"], first
            process.stdout.readline()
            yield RunningAgent(process, first[1])
        finally:
            process.kill()


def config_json(config: DecoderConfig = QUICK) -> dict[str, Any]:
    """What is uploaded."""
    return config.to_dict()
