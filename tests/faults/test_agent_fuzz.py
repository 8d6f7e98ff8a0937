"""Requests, answers and queues that Hypothesis makes up: each is answered or refused with the reason, in one line.

The application is called without a network and never answers with 500. The examples are the same in every run.
"""

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from nas.latency import LatencyRecord, MeasurementFailedError, Workload
from nas.latency.agent.answers import LONGEST_S, read_job, read_offer
from nas.latency.agent.folder import claim_folder, prepare_folder
from nas.latency.agent.queue import DamagedQueueError, Queue
from nas.latency.agent.server import Agent
from nas.latency.agent.services import HostService
from nas.latency.agent.worker import Worker
from nas.terminal.errors import UserError
from tests.support.agents import SMALL, TOKEN, config_json
from tests.support.fake_agents import DONE, OFFER, RECORD

FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LARGEST_UPLOAD = 100_000


@dataclass(frozen=True)
class Immediate(HostService):
    """Checks what a host checks; what it measures takes no time."""

    def measure(self, upload: Path, workload: Workload, stop: threading.Event) -> LatencyRecord:
        return LatencyRecord.from_dict({**RECORD, **workload.to_dict()})


@dataclass(frozen=True)
class Fuzzed:
    """An agent in this process."""

    app: ASGIApp
    folder: Path
    worker: Worker


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("agent")
    claim_folder(folder)
    service, queue = Immediate("a box", torch.device("cpu"), 900), Queue(folder)
    prepare_folder(folder, set())
    worker = Worker(service, queue)
    worker.start()
    yield Fuzzed(Agent(service, queue, worker, folder, LARGEST_UPLOAD).make_app(TOKEN), folder, worker)
    worker.stop(30)


def ask(
    fuzzed: Fuzzed, method: str, path: str, query: bytes = b"", body: bytes = b"", token: str = TOKEN
) -> tuple[int, dict[str, Any]]:
    """Status and content of the answer; AssertionError unless it is one JSON object and no upload is left."""
    sent: list[Message] = []
    chunks = [body[start : start + 1000] for start in range(0, len(body), 1000)] or [b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="replace"),
        "root_path": "",
        "query_string": query,
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    asyncio.run(fuzzed.app(scope, receive, send))  # type: ignore[arg-type]
    content = json.loads(b"".join(message.get("body", b"") for message in sent))
    assert isinstance(content, dict)
    assert not list((fuzzed.folder / "incoming").iterdir())
    return int(sent[0]["status"]), content


def check(fuzzed: Fuzzed, answer: tuple[int, dict[str, Any]], *expected: int) -> None:
    """An expected status, a reason if it is a refusal, and an agent that goes on."""
    status, content = answer
    assert status in expected, content
    assert status < 400 or (content["error"] and "\n" not in content["error"])
    assert fuzzed.worker.trouble() is None


def with_query(**changes: object) -> bytes:
    return urlencode({**SMALL, **changes}).encode()


PRIMITIVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.sampled_from([10**9, 2**63, 10**400, -1]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["conv3d_stem", "dense_conv3d", "haar_head", "causal", "leading", "", "\x00"]),
)
JSON = st.recursive(
    PRIMITIVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside of a JSON value, the value itself among it."""
    keys = list(data) if isinstance(data, dict) else list(range(len(data))) if isinstance(data, list) else []
    return [path, *(place for key in keys for place in places(data[key], (*path, key)))]


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a JSON value with something else at a path."""
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


PLACES = places(config_json())


@FUZZ
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"]),
    path=st.one_of(
        st.text(max_size=20).map(lambda text: f"/{text}"),
        st.text(max_size=20).map(lambda text: f"/jobs/{text}"),
        st.sampled_from(["/", "/jobs", "/jobs/", "/device", "/device/", "//", "/jobs/../device", "/jobs/" + "0" * 32]),
    ),
    query=st.binary(max_size=40),
    body=st.binary(max_size=200),
)
def test_any_request(fuzzed: Fuzzed, method: str, path: str, query: bytes, body: bytes) -> None:
    if method == "HEAD":
        return
    check(fuzzed, ask(fuzzed, method, path, query, body), 200, 400, 404, 405)


@FUZZ
@given(
    name=st.sampled_from(["height", "width", "frames"]),
    value=st.one_of(
        st.text(max_size=12),
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["True", "16.0", "1e1", "١٦", "0x10", " 16", "+16", "1_6", "9" * 5000]),
    ),
)
def test_any_size(fuzzed: Fuzzed, name: str, value: str) -> None:
    body = json.dumps(config_json()).encode()
    status, content = ask(fuzzed, "POST", "/jobs", with_query(**{name: value}), body)
    check(fuzzed, (status, content), 202, 400)
    assert status == 400 or (value.isascii() and value.isdigit() and int(value) >= 1)


@FUZZ
@given(body=st.one_of(st.binary(max_size=300), JSON.map(lambda data: json.dumps(data).encode())))
def test_any_upload(fuzzed: Fuzzed, body: bytes) -> None:
    check(fuzzed, ask(fuzzed, "POST", "/jobs", with_query(), body), 400)


@FUZZ
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere_in_a_config(fuzzed: Fuzzed, place: tuple[Any, ...], value: Any) -> None:
    """What is accepted has whole numbers and true or false exactly where they belong."""
    config = replaced(config_json(), place, value)
    status, content = ask(fuzzed, "POST", "/jobs", with_query(), json.dumps(config).encode())
    check(fuzzed, (status, content), 202, 400)
    before = config_json()
    for key in place:
        before = before[key]
    if status == 202 and isinstance(before, int):
        assert type(value) is type(before)


@FUZZ
@given(place=st.sampled_from([place for place in PLACES if place and isinstance(place[-1], str)]))
def test_any_key_missing_in_a_config(fuzzed: Fuzzed, place: tuple[Any, ...]) -> None:
    config = config_json()
    inside = config
    for key in place[:-1]:
        inside = inside[key]
    del inside[place[-1]]
    # Options of parts have defaults; everything else is needed.
    check(fuzzed, ask(fuzzed, "POST", "/jobs", with_query(), json.dumps(config).encode()), 202, 400)


@FUZZ
@given(start=st.integers(0, 2000), bytes_=st.binary(min_size=1, max_size=20))
def test_any_bytes_anywhere_in_a_config(fuzzed: Fuzzed, start: int, bytes_: bytes) -> None:
    whole = json.dumps(config_json()).encode()
    start %= len(whole)
    damaged = whole[:start] + bytes_ + whole[start + len(bytes_) :]
    check(fuzzed, ask(fuzzed, "POST", "/jobs", with_query(), damaged), 202, 400)


@FUZZ
@given(token=st.text(max_size=30))
def test_any_token(fuzzed: Fuzzed, token: str) -> None:
    check(fuzzed, ask(fuzzed, "GET", "/device", token=token), 401) if token != TOKEN else None


ANSWERS = [("offer", place) for place in places(OFFER)] + [("job", place) for place in places(DONE)]


@FUZZ
@given(which=st.sampled_from(ANSWERS), value=JSON)
def test_any_value_anywhere_in_an_answer(which: tuple[str, tuple[Any, ...]], value: Any) -> None:
    """A client takes an answer for what was asked for, or ends with one line."""
    kind, place = which
    workload = Workload(16, 16, 1)
    content = replaced(OFFER if kind == "offer" else DONE, place, value)
    if not isinstance(content, dict):
        return
    try:
        if kind == "offer":
            offer = read_offer("http://mac:8765", content)
            assert 0 < offer.longest_s <= LONGEST_S and offer.largest_upload >= 1
            return
        found = read_job("http://mac:8765", content, read_offer("http://mac:8765", OFFER), workload, None)
    except (UserError, MeasurementFailedError) as error:
        assert "\n" not in str(error)
        return
    if isinstance(found, LatencyRecord):
        assert (found.kind, found.workload, found.dtype) == ("measured", workload, "float32")
        assert 0 < found.ms_per_frame < math.inf and sum(found.by_stage.values()) > 0


@FUZZ
@given(start=st.integers(0, 100_000), bytes_=st.binary(min_size=1, max_size=64))
def test_any_bytes_anywhere_in_a_queue(tmp_path_factory: pytest.TempPathFactory, start: int, bytes_: bytes) -> None:
    """It can be read as it is, or is named as damaged and stays as it is."""
    folder = tmp_path_factory.getbasetemp() / "damaged_queue"
    if not folder.exists():
        claim_folder(folder)
        queue = Queue(folder)
        for number in range(3):
            queue.submit(f"{number:032x}", Workload(16, 16, number + 1))
        queue.finish(f"{0:032x}", LatencyRecord.from_dict(RECORD), None)
        (folder / "queue.db").rename(folder / "whole.db")
    whole = (folder / "whole.db").read_bytes()
    start %= len(whole)
    damaged = (whole[:start] + bytes_ + whole[start + len(bytes_) :])[: len(whole)]
    (folder / "queue.db").write_bytes(damaged)
    try:
        Queue(folder)
    except DamagedQueueError as error:
        assert "queue.db cannot be used: " in str(error)
    assert (folder / "queue.db").read_bytes() == damaged
