"""A device behind an agent: decoders go there, latencies come back."""

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from torch import nn

from nas.latency.agent import TOKEN_VARIABLE
from nas.latency.agent.archive import pack
from nas.latency.measurement.core_ml import convert
from nas.latency.record import Kind, LatencyRecord, MeasurementFailedError, Runtime, Workload, provenance
from nas.terminal.errors import UserError
from search_spaces import Decoder, LatentSpec

_TIMEOUT_S = (5.0, 60.0)
"""Seconds to connect, and between two bytes of an answer."""

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 2.0


@dataclass(frozen=True)
class AgentDevice:
    """The device that an agent measures on."""

    name: str
    """Address of the agent, such as http://mac:8765."""
    description: str
    """The agent's device in words."""
    served: str
    """Name that the agent serves its device by: host, coreml or iphone."""
    accepts: str
    """What the agent takes: "config" or "package"."""
    largest_upload: int
    """Largest upload that the agent takes, in bytes."""
    token: str | None
    """Bearer token that every request carries; None if the agent needs none."""
    patience_s: float = 120.0
    """Seconds for which a request is repeated while the agent does not answer."""
    session: requests.Session = field(default_factory=requests.Session)
    """HTTP session of all requests, without a proxy."""

    kind: Kind = "measured"
    error: float | None = None
    needs_weights: bool = False

    @property
    def runtime(self) -> Runtime:
        """PyTorch builds decoders from configs; packages are Core ML's."""
        return "pytorch" if self.accepts == "config" else "coreml"

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, measured on mac (arm64 CPU) by the agent at http://mac:8765"."""
        return f"{provenance(workload, self.kind, self.description, None)} by the agent at {self.name}"

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Send the architecture, wait for the measurement.

        Raises:
            MeasurementFailedError: the device could not run it.
            UserError: the agent refuses, or does not answer any more.
        """
        if not isinstance(decoder, Decoder):
            raise ValueError(f"an agent measures decoders that a config describes, not a {type(decoder).__name__}")
        if self.accepts == "config":
            body = json.dumps(decoder.config.to_dict()).encode()
        else:
            body = _package_body(self.served, decoder, spec, workload)
        if len(body) > self.largest_upload:
            raise MeasurementFailedError(f"{len(body)} bytes are more than the agent takes ({self.largest_upload})")
        query = {"height": workload.height, "width": workload.width, "frames": workload.num_frames}
        job = self._ask("POST", "/jobs", params=query, data=body)
        delay = _FIRST_DELAY_S
        while job["state"] in ("queued", "running"):
            time.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_S)
            job = self._ask("GET", f"/jobs/{job['id']}")
        if job["state"] == "failed":
            raise MeasurementFailedError(job["error"])
        return LatencyRecord.from_dict(job["record"])

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """The agent's answer; one that is down is asked again for a while."""
        deadline = time.monotonic() + self.patience_s
        delay = _FIRST_DELAY_S
        while True:
            try:
                return _request(self.session, method, self.name, path, self.token, **arguments)
            except (requests.ConnectionError, requests.Timeout) as error:
                if time.monotonic() > deadline:
                    raise _unreachable(self.name) from error
            time.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_S)


def open_agent(address: str) -> AgentDevice:
    """The device behind the agent at this address; the token is that in NAS_AGENT_TOKEN.

    Raises:
        UserError: no agent answers there, or it refuses.
    """
    parts = urlsplit(address)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise UserError(f"expected an agent's address such as http://mac:8765 (no user, no query), got {address}")
    token, session = os.environ.get(TOKEN_VARIABLE) or None, requests.Session()
    # No proxy, and no password of a .netrc file in place of the token.
    session.trust_env = False
    address = address.rstrip("/")
    try:
        device = _request(session, "GET", address, "/device", token)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _unreachable(address) from error
    if device.get("accepts") not in ("config", "package"):
        raise UserError(f"{address} is not an agent of this version: start one there with python -m nas.latency serve")
    return AgentDevice(
        name=address,
        description=str(device["description"]),
        served=str(device["name"]),
        accepts=str(device["accepts"]),
        largest_upload=int(device["largest_upload"]),
        token=token,
        session=session,
    )


def _request(
    session: requests.Session, method: str, address: str, path: str, token: str | None, **arguments: Any
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = session.request(
        method, address + path, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False, **arguments
    )
    if answer.status_code == 401:
        raise UserError(f"the agent at {address} wants another token: set {TOKEN_VARIABLE} to the one it was given")
    try:
        content = answer.json()
    except requests.JSONDecodeError as error:
        raise UserError(f"{address} is not an agent: its answer to {path} is not JSON") from error
    if answer.status_code >= 400 or not isinstance(content, dict):
        reason = content.get("error") if isinstance(content, dict) else content
        raise UserError(f"the agent at {address} refuses ({answer.status_code}): {reason}")
    return content


def _unreachable(address: str) -> UserError:
    return UserError(
        f"no agent answers at {address}: start it there with python -m nas.latency serve, then run this again"
    )


def _package_body(device: str, decoder: Decoder, spec: LatentSpec, workload: Workload) -> bytes:
    """The decoder as a Core ML package with random weights, which take as long as others."""
    with tempfile.TemporaryDirectory() as folder:
        return pack(convert(device, Decoder(decoder.config), spec, workload, Path(folder)))
