"""A device behind an agent: decoders go there, latencies come back."""

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from torch import nn

from nas.latency.agent import TOKEN_VARIABLE
from nas.latency.agent.answers import Offer, Progress, read_job, read_offer
from nas.latency.agent.archive import pack
from nas.latency.agent.exchange import NoAnswerError, ask, check_address, check_token
from nas.latency.measurement.core_ml import convert
from nas.latency.record import Kind, LatencyRecord, MeasurementFailedError, Runtime, Workload, provenance
from nas.machine.files import disk_errors
from nas.machine.temporary import temporary_folder
from nas.terminal.errors import UserError
from search_spaces import Decoder, LatentSpec

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 2.0


@dataclass(frozen=True)
class AgentDevice:
    """The device that an agent measures on."""

    name: str
    """Address of the agent, such as http://mac:8765."""
    offer: Offer
    """What the agent says about its device."""
    token: str | None
    """Bearer token that every request carries; None if the agent needs none."""
    patience_s: float = 120.0
    """Seconds for which a request is repeated while the agent does not answer, and which a measurement may take longer
    than the agent's limit."""
    session: requests.Session = field(default_factory=requests.Session)
    """HTTP session of all requests, without a proxy."""

    kind: Kind = "measured"
    error: float | None = None
    needs_weights: bool = False

    @property
    def runtime(self) -> Runtime:
        """What executes decoders there."""
        return self.offer.runtime

    def describe(self, workload: Workload) -> str:
        """ "at 512x512 x 17 frames, measured on mac (arm64 CPU) by the agent at http://mac:8765"."""
        return f"{provenance(workload, self.kind, self.offer.description, None)} by the agent at {self.name}"

    def latency(self, decoder: nn.Module, spec: LatentSpec, workload: Workload) -> LatencyRecord:
        """Send the architecture, wait for the measurement.

        Raises:
            MeasurementFailedError: the device could not run it.
            UserError: the agent refuses, is broken, does not answer or does not end, or its answer is none.
        """
        if not isinstance(decoder, Decoder):
            raise ValueError(f"an agent measures decoders that a config describes, not a {type(decoder).__name__}")
        if self.offer.accepts == "config":
            body = json.dumps(decoder.config.to_dict()).encode()
        else:
            body = _package_body(self.offer.name, decoder, spec, workload)
        if len(body) > self.offer.largest_upload:
            raise MeasurementFailedError(
                f"{len(body)} bytes are more than the agent takes ({self.offer.largest_upload})"
            )
        query = {"height": workload.height, "width": workload.width, "frames": workload.num_frames}
        answer = self._ask("POST", "/jobs", params=query, data=body)
        job = read_job(self.name, answer, self.offer, workload, None)
        delay, best = _FIRST_DELAY_S, job
        deadline = self._next_deadline()
        while isinstance(job, Progress) and isinstance(best, Progress):
            if job.steps_left < best.steps_left:
                best, deadline = job, self._next_deadline()
            if time.monotonic() > deadline:
                raise UserError(
                    f"the agent at {self.name} has not measured job {job.id}: no progress for "
                    f"{self.offer.longest_s + self.patience_s:g} s; see what it is doing there, then run this again"
                )
            time.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_S)
            job = read_job(self.name, self._ask("GET", f"/jobs/{job.id}"), self.offer, workload, job.id)
        assert isinstance(job, LatencyRecord)
        return job

    def _next_deadline(self) -> float:
        """When a job has to have come one step further: no step takes longer than one measurement."""
        return time.monotonic() + self.offer.longest_s + self.patience_s

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """The agent's answer; one that is down is asked again for a while."""
        deadline = time.monotonic() + self.patience_s
        delay = _FIRST_DELAY_S
        while True:
            try:
                return ask(self.session, method, self.name, path, self.token, **arguments)
            except NoAnswerError as error:
                if time.monotonic() > deadline:
                    raise _unreachable(self.name) from error
            time.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_S)


def open_agent(address: str) -> AgentDevice:
    """The device behind the agent at this address; the token is that in NAS_AGENT_TOKEN.

    Raises:
        UserError: it is no address, no agent answers there, or it refuses.
    """
    address = check_address(address)
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None:
        check_token(token, TOKEN_VARIABLE)
    session = requests.Session()
    # No proxy, and no password of a .netrc file in place of the token.
    session.trust_env = False
    try:
        offer = read_offer(address, ask(session, "GET", address, "/device", token))
    except NoAnswerError as error:
        raise _unreachable(address) from error
    return AgentDevice(address, offer, token, session=session)


def _unreachable(address: str) -> UserError:
    return UserError(
        f"no agent answers at {address}: start it there with python -m nas.latency serve, then run this again"
    )


def _package_body(device: str, decoder: Decoder, spec: LatentSpec, workload: Workload) -> bytes:
    """The decoder as a Core ML package with random weights, which take as long as others."""
    with disk_errors("cannot convert a decoder"), temporary_folder(Path(tempfile.gettempdir())) as folder:
        return pack(convert(device, Decoder(decoder.config), spec, workload, folder))
