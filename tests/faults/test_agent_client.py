"""Addresses that are none, and whatever may answer at one: each is refused in one line that names it."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from nas.latency import LatencyRecord, MeasurementFailedError, Workload, open_device
from nas.latency.agent import exchange
from nas.latency.agent.client import AgentDevice, open_agent
from search_spaces import Decoder
from tests.support.agents import QUICK
from tests.support.errors import refusal
from tests.support.fake_agents import DONE, JOB, OFFER, RECORD, Answer, answering, as_json, speaking

WORKLOAD = Workload(16, 16, 1)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_AGENT_TOKEN", raising=False)


def measure(device: AgentDevice) -> object:
    with torch.device("meta"):
        decoder = Decoder(QUICK)
    return device.latency(decoder, QUICK.latents, WORKLOAD)


# Addresses

ADDRESSES = [
    "http://",
    "http://:8765",
    "http://mac:99999",
    "http://mac:port",
    "http://mac:0",
    "http://[::1",
    "http://a..b:8765",
    f"http://{'a' * 70}:8765",
    "http://mac 1:8765",
    "http://mac:8765/\x1b[31m",
    "http://mac:8765?x=1",
    "http://me:secret@mac:8765",
    "ftp://mac:8765",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_are_none(address: str) -> None:
    message = refusal(lambda: open_device(address))
    assert message.startswith("expected an agent's address such as http://mac:8765")
    assert "secret" not in message and message.isprintable()


@pytest.mark.parametrize("address", ["mac:8765", "127.0.0.1:8765"])
def test_an_address_without_http(address: str) -> None:
    assert f"did you mean http://{address}?" in refusal(lambda: open_device(address))


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "schlüssel", "\x7f"])
def test_tokens_that_cannot_be_sent(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_AGENT_TOKEN", token)
    assert "the token in NAS_AGENT_TOKEN has to be" in refusal(lambda: open_device("http://127.0.0.1:9"))


# Answers to the first question

OFFERS: dict[str, tuple[Answer, str]] = {
    "a page": ((200, "text/html", b"<html>hello</html>"), "not an agent: its answer to /device (200) is not JSON"),
    "JSON that says it is a page": ((200, "text/html", as_json(OFFER)[2]), "is not JSON (text/html)"),
    "nothing": ((200, "application/json", b""), "is not JSON"),
    "half an answer": ((200, "application/json", as_json(OFFER)[2][:40]), "is not JSON"),
    "no text": ((200, "application/json", b"\xff\xfe\xfd"), "is not JSON"),
    "a list": (as_json([OFFER]), "is not an object"),
    "depth": ((200, "application/json", b"[" * 200_000), "is not JSON"),
    "NaN": (as_json({**OFFER, "longest_s": math.nan}), "it holds NaN"),
    "a redirect": ((302, "application/json", b"{}"), "redirects /device to /elsewhere"),
    "a gateway": ((502, "text/html", b"<h1>bad gateway</h1>"), "(502) is not JSON"),
    "a refusal": (as_json({"error": "no\nno"}, 403), "refuses (403): no no"),
    "a broken agent": (as_json({**OFFER, "broken": "the disk is full"}), "is broken: the disk is full; mend that"),
    "another service": (as_json({"status": "ok"}), "not an agent of this version ('"),
    "no number": (as_json({**OFFER, "largest_upload": True}), "'largest_upload' has to be a whole number"),
    "a wait without end": (as_json({**OFFER, "longest_s": 1e12}), "not an agent of this version"),
    "a precision that is none": (as_json({**OFFER, "dtype": "float8"}), "'dtype' has to be"),
    "packages for PyTorch": (as_json({**OFFER, "accepts": "package"}), "pytorch does not take a package"),
}


@pytest.mark.parametrize("row", OFFERS)
def test_answers_that_are_no_offer(row: str) -> None:
    answer, words = OFFERS[row]
    with answering(lambda method, path: answer) as address:
        message = refusal(lambda: open_device(address))
    assert words in message and address in message


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_LARGEST_ANSWER", 1000)
    with answering(lambda method, path: (200, "application/json", b" " * 2000)) as address:
        assert "more than 1000 bytes" in refusal(lambda: open_device(address))


def test_another_protocol() -> None:
    with speaking(b"SSH-2.0-OpenSSH_9.7\r\n", 0) as address:
        assert "does not speak HTTP" in refusal(lambda: open_device(address))
    with answering(lambda method, path: as_json(OFFER)) as address:
        message = refusal(lambda: open_device(address.replace("http", "https")))
    assert "cannot be reached by TLS" in message and "give http://" in message


# Records


def telling(offer: Answer, first: Answer, later: Answer) -> Callable[[str, str], Answer]:
    """What a server answers: to the first question, to a job that is sent, to questions about it."""
    known = {"/device": offer, f"/jobs/{JOB}": later}
    return lambda method, path: known.get(path, first)


RECORDS: dict[str, tuple[dict[str, Any], str]] = {
    "another size": ({"height": 32}, "another size (32x16 x 1 frames, asked for 16x16 x 1 frames)"),
    "predicted": ({"kind": "predicted"}, "another kind (predicted, asked for measured)"),
    "another precision": ({"dtype": "float16"}, "another precision (float16, asked for float32)"),
    "another runtime": (
        {"details": {"units": {"ALL": {"device": "Mac", "statistics": {"median_ms": 2.0}}}}},
        "another runtime (asked for pytorch)",
    ),
    "zero": ({"ms_per_frame": 0, "by_stage": {"stem": 0}}, "must be positive"),
    "below zero": ({"ms_per_frame": -2.0}, "must be positive"),
    "a text": ({"ms_per_frame": "2"}, "'ms_per_frame' has to be a finite number"),
    "true": ({"ms_per_frame": True}, "'ms_per_frame' has to be a finite number"),
    "too large to be a float": ({"ms_per_frame": 10**400}, "'ms_per_frame' has to be a finite number"),
    "half a pixel": ({"width": 16.0}, "'width' has to be a whole number"),
    "no kind": ({"kind": "guessed"}, "'kind' has to be"),
    "no stages": ({"by_stage": {}}, "'by_stage' has to be"),
    "stages of another whole": ({"by_stage": {"stem": 0.5}}, "add up to 0.5 ms, not to 2 ms"),
    "a stage below zero": ({"by_stage": {"stem": 3, "head": -1}}, "'by_stage' has to be"),
    "an error below zero": ({"error": -1}, "'error' has to be at least 0"),
    "units that are none": ({"details": {"units": {"ALL": 3}}}, "'units' has to be"),
    "too much": ({"note": "x"}, "'note' is not known"),
}


def send(job: object) -> str:
    """The message of the error that this answer to a job makes."""
    with answering(telling(as_json(OFFER), as_json(job), as_json(job))) as address:
        device = open_agent(address)
        message = refusal(lambda: measure(device))
        assert address in message
        return message


@pytest.mark.parametrize("row", RECORDS)
def test_records_that_were_not_asked_for(row: str) -> None:
    changes, words = RECORDS[row]
    message = send({**DONE, "record": {**RECORD, **changes}})
    assert words in message and "nothing of it is used" in message


@pytest.mark.parametrize("key", [key for key in RECORD if key != "details"])
def test_records_that_lack_something(key: str) -> None:
    assert f"'{key}' is missing" in send(
        {**DONE, "record": {name: value for name, value in RECORD.items() if name != key}}
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    assert "is not JSON (it holds" in send({**DONE, "record": {**RECORD, "ms_per_frame": value}})


@pytest.mark.parametrize(
    "changes",
    [
        {"record": None},
        {"record": [RECORD]},
        {"state": "finished"},
        {"state": None},
        {"state": "queued", "ahead": -1},
        {"state": "queued", "ahead": 1.5},
        {"state": "queued", "ahead": True},
        {"id": "../device"},
        {"id": 7},
    ],
)
def test_answers_about_a_job_that_are_none(changes: dict[str, Any]) -> None:
    assert "gave a" in send({**DONE, **changes})


def test_the_record_that_was_asked_for() -> None:
    """What all the others were changed from is accepted, and a failed job is a result."""
    queued = as_json({**DONE, "state": "queued", "record": None}, 202)
    with answering(telling(as_json(OFFER), queued, as_json(DONE))) as address:
        assert measure(open_agent(address)) == LatencyRecord.from_dict(RECORD)
    failed = as_json({**DONE, "state": "failed", "error": "out\nof memory"})
    with answering(telling(as_json(OFFER), queued, failed)) as address:
        device = open_agent(address)
        with pytest.raises(MeasurementFailedError, match=r"^out of memory$"):
            measure(device)


def test_an_answer_about_another_job() -> None:
    other, first = as_json({**DONE, "id": JOB[::-1]}), as_json({**DONE, "state": "running"})
    with answering(telling(as_json(OFFER), first, other)) as address:
        device = open_agent(address)
        assert "an answer about another job" in refusal(lambda: measure(device))


# Waits


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_never_ends(state: str) -> None:
    job, offer = as_json({**DONE, "state": state, "record": None}), as_json({**OFFER, "longest_s": 0.2})
    with answering(telling(offer, job, job)) as address:
        device = replace(open_agent(address), patience_s=0.3)
        started = time.monotonic()
        message = refusal(lambda: measure(device))
    assert f"has not measured job {JOB}: no progress for 0.5 s" in message
    assert time.monotonic() - started < 20


def test_an_agent_that_breaks_while_a_client_waits() -> None:
    running = {**DONE, "state": "running", "record": None}
    broken = {**running, "broken": "disk I/O error"}
    with answering(telling(as_json(OFFER), as_json(running), as_json(broken))) as address:
        device = open_agent(address)
        assert f"the agent at {address} is broken: disk I/O error" in refusal(lambda: measure(device))


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b" " * 999],
    ids=["head", "body"],
)
def test_an_agent_that_drips(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "transfer_limit_s", lambda size: 0.5)
    started = time.monotonic()
    with speaking(data, 0.05) as address:
        message = refusal(lambda: open_device(address))
    assert f"the agent at {address} has not answered GET /device in full after 0.5 s" in message
    assert time.monotonic() - started < 20


def test_an_agent_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_TIMEOUT_S", (0.2, 0.2))
    with speaking(b"", 0) as address:
        assert f"no agent answers at {address}" in refusal(lambda: open_device(address))
