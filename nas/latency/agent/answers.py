"""What an agent says, checked before anything is made of it: an answer is another program's, and may be anything."""

import math
import re
from dataclasses import dataclass
from typing import Any

from nas.latency.agent.exchange import one_line
from nas.latency.record import LatencyRecord, MeasurementFailedError, Runtime, Workload, is_number
from nas.terminal.errors import UserError

_LONGEST_S = 86_400
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
    accepts: str
    """What the agent takes: "config" or "package"."""
    runtime: Runtime
    """What executes decoders there."""
    dtype: str
    """Precision that decoders compute in there: float16 or float32."""
    largest_upload: int
    """Largest upload that the agent takes, in bytes."""
    longest_s: float
    """Most seconds that one measurement takes."""


def read_offer(address: str, content: dict[str, Any]) -> Offer:
    """The answer to GET /device; UserError if it is not an agent's of this version."""
    found: dict[str, Any] = {name: content.get(name) for name in Offer.__dataclass_fields__}
    right = (
        isinstance(found["name"], str)
        and isinstance(found["description"], str)
        and (found["accepts"], found["runtime"]) in (("config", "pytorch"), ("package", "coreml"))
        and found["dtype"] in ("float16", "float32")
        and isinstance(found["largest_upload"], int)
        and is_number(found["largest_upload"])
        and is_number(found["longest_s"])
        and 0 < found["longest_s"] <= _LONGEST_S
    )
    if not right:
        raise UserError(f"{address} is not an agent of this version: start one there with python -m nas.latency serve")
    found |= {name: one_line(found[name]) for name in ("name", "description")}
    return Offer(**found)


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
