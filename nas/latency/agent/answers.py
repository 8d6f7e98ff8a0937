"""What an agent says, checked before anything is made of it: an answer is another program's, and may be anything."""

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from nas.latency.agent.exchange import one_line
from nas.latency.record import LatencyRecord, MeasurementFailedError, Runtime, Workload
from nas.machine.records import read_fields
from nas.terminal.errors import UserError

LONGEST_S = 86_400
"""Longest time limit of a measurement that is believed: a day."""

_MOST_AHEAD = 1000
"""Largest number of jobs ahead that is believed."""

_STAGES_TOLERANCE = 1e-3
"""Largest relative difference between the sum of the stages and the whole."""


@dataclass(frozen=True)
class Offer:
    """What an agent says about its device."""

    name: str
    """Name that the agent serves its device by: host, coreml or iphone."""
    description: str
    """The device in words."""
    accepts: Literal["config", "package"]
    """What the agent takes: the config of a decoder, or its Core ML package."""
    runtime: Runtime
    """What executes decoders there."""
    dtype: Literal["float16", "float32"]
    """Precision that decoders compute in there: float16 or float32."""
    largest_upload: int
    """Largest upload that the agent takes, in bytes."""
    longest_s: float
    """Most seconds that one measurement takes."""


def read_offer(address: str, content: dict[str, Any]) -> Offer:
    """The answer to GET /device; UserError if it is not an agent's of this version."""
    try:
        offer = read_fields(Offer, {name: content[name] for name in Offer.__dataclass_fields__ if name in content})
        if offer.runtime != {"config": "pytorch", "package": "coreml"}[offer.accepts]:
            raise ValueError(f"{offer.runtime} does not take a {offer.accepts}")
        if offer.largest_upload < 1 or not 0 < offer.longest_s <= LONGEST_S:
            raise ValueError(f"its limits are {offer.largest_upload} bytes and {offer.longest_s} s")
    except ValueError as error:
        raise UserError(
            f"{address} is not an agent of this version ({one_line(error)}): start one there with "
            f"python -m nas.latency serve"
        ) from error
    return replace(offer, name=one_line(offer.name), description=one_line(offer.description))


@dataclass(frozen=True)
class Progress:
    """A job that is not done."""

    id: str
    """Id of the job, 32 hex digits."""
    steps_left: int
    """What is still to happen before the job is done: jobs ahead of it, its own start, its own end."""


def read_job(
    address: str, content: dict[str, Any], offer: Offer, workload: Workload, expected: str | None
) -> Progress | LatencyRecord:
    """The answer about a job: how far it is, or its record.

    Args:
        address: of the agent, for messages.
        content: the answer.
        offer: what the agent said about its device.
        workload: the decode that was asked for.
        expected: id of the job that was asked about; None if it was just sent.

    Raises:
        MeasurementFailedError: the device could not run the decoder.
        UserError: it is not an agent's answer to that.
    """
    job, state, ahead = content.get("id"), content.get("state"), content.get("ahead")
    if not isinstance(job, str) or not re.fullmatch(r"[0-9a-f]{32}", job) or expected not in (None, job):
        raise _bad(address, f"an answer about another job ({one_line(job)})")
    if state == "failed":
        raise MeasurementFailedError(one_line(content.get("error")))
    if state == "done":
        return _read_record(address, content.get("record"), offer, workload)
    whole = isinstance(ahead, int) and not isinstance(ahead, bool) and 0 <= ahead <= _MOST_AHEAD
    if state not in ("queued", "running") or not whole:
        raise _bad(address, f"an answer about no state of a job ({one_line(state)}, {one_line(ahead)} ahead)")
    return Progress(job, 1 if state == "running" else 2 + int(str(ahead)))


def _read_record(address: str, data: Any, offer: Offer, workload: Workload) -> LatencyRecord:
    """The record, if it is of what was asked for."""
    try:
        record = LatencyRecord.from_dict(data)
    except ValueError as error:
        raise _bad(address, f"a record that is none: {one_line(error)}") from error
    for what, found, asked in (
        ("kind", record.kind, "measured"),
        ("size", record.workload.describe(), workload.describe()),
        ("precision", record.dtype, offer.dtype),
    ):
        if found != asked:
            raise _bad(address, f"a record of another {what} ({one_line(found)}, asked for {asked})")
    total = sum(record.by_stage.values())
    if not math.isclose(total, record.ms_per_frame, rel_tol=_STAGES_TOLERANCE):
        raise _bad(address, f"a record whose stages add up to {total:g} ms, not to {record.ms_per_frame:g} ms")
    if ("units" in record.details) != (offer.runtime == "coreml"):
        raise _bad(address, f"a record of another runtime (asked for {offer.runtime})")
    return record


def _bad(address: str, what: str) -> UserError:
    return UserError(f"the agent at {address} gave {what}: nothing of it is used; see what is running there")
