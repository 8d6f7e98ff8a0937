"""The measuring agent as clients meet it: a real server process, real measurements, and everything that goes wrong."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas.latency import MeasurementFailedError, Workload, open_device
from nas.latency.__main__ import main
from nas.latency.agent.client import AgentDevice, open_agent
from nas.machine.locks import lock_folder
from nas.terminal.errors import UserError
from search_spaces import PRESETS, Decoder, DecoderConfig, adapt
from tests.support.agents import QUICK, SMALL, TOKEN, RunningAgent, config_json, running_agent

COG = PRESETS["turbo_vaed_cog"]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    with running_agent(tmp_path_factory.mktemp("agent"), "--largest-upload", "1") as running:
        yield running


@pytest.fixture
def device(agent: RunningAgent, monkeypatch: pytest.MonkeyPatch) -> AgentDevice:
    monkeypatch.setenv("NAS_AGENT_TOKEN", TOKEN)
    return open_agent(agent.address)


def on_meta(config: DecoderConfig) -> Decoder:
    with torch.device("meta"):
        return Decoder(config)


def wait_for(agent: RunningAgent, job: str, *states: str) -> dict[str, object]:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        found: dict[str, object] = agent.request("GET", f"/jobs/{job}").json()
        if found["state"] in states:
            return found
        time.sleep(0.05)
    raise AssertionError(f"job {job} is {found['state']}")


# What it is for


def test_a_decoder_is_measured_there_once(device: AgentDevice) -> None:
    workload = Workload(16, 16, 1)
    record = device.latency(on_meta(QUICK), QUICK.latents, workload)
    assert (record.kind, record.workload) == ("measured", workload)
    assert record.ms_per_frame > 0 and sum(record.by_stage.values()) == pytest.approx(record.ms_per_frame)
    assert record.device == device.offer.description and "this machine" not in record.device
    # Equal to the last digit: it was not measured again.
    assert device.latency(on_meta(QUICK), QUICK.latents, workload) == record
    words = device.describe(workload)
    assert words.startswith("at 16x16 x 1 frames, measured on ") and words.endswith(f"by the agent at {device.name}")
    assert (device.kind, device.error, device.needs_weights) == ("measured", None, False)
    assert open_device(device.name).name == device.name


# Who is let in


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1]])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/device"), ("POST", "/jobs"), ("GET", "/jobs/1"), ("GET", "/"), ("DELETE", "/jobs"), ("GET", "/../x")],
)
def test_without_the_token_there_is_nothing_but_401(
    agent: RunningAgent, method: str, path: str, token: str | None
) -> None:
    answer = agent.request(method, path, token, data=b"x" if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.json() == {"error": "a bearer token is needed"}


@pytest.mark.parametrize("header", [f"Basic {TOKEN}", TOKEN, f"bearer {TOKEN}", f"Bearer  {TOKEN}"])
def test_the_token_has_to_be_a_bearer_token(agent: RunningAgent, header: str) -> None:
    assert agent.request("GET", "/device", None, headers={"Authorization": header}).status_code == 401


def test_a_search_with_the_wrong_token_is_told(agent: RunningAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("wrong", ""):
        monkeypatch.setenv("NAS_AGENT_TOKEN", token)
        with pytest.raises(UserError, match="wants another token: set NAS_AGENT_TOKEN"):
            open_agent(agent.address)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_it_binds_to_no_open_address_without_a_token(
    bind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NAS_AGENT_TOKEN", raising=False)
    assert main(["serve", "--bind", bind, "--folder", str(tmp_path / "agent")]) == 2
    error = capsys.readouterr().err
    assert f"--bind {bind} can be reached by others: set NAS_AGENT_TOKEN" in error and error.count("\n") == 1
    assert not (tmp_path / "agent").exists()


# What it refuses


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"height": 0}, "height has to be a whole number from 1 to 4096, got '0'"),
        ({"width": "1e3"}, "width"),
        ({"frames": 10**9}, "frames has to be a whole number from 1 to 1024"),
        ({"height": "-16"}, "height"),
        ({"height": 17}, "height must be a multiple of 8"),
        ({"frames": ""}, "frames"),
    ],
)
def test_a_decode_that_is_none(agent: RunningAgent, query: dict[str, object], words: str) -> None:
    answer = agent.request("POST", "/jobs", params={**SMALL, **query}, json=config_json())
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def changed(**values: object) -> bytes:
    return json.dumps({**config_json(), **values}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff" * 50,
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"NaN",
        b"{}",
        changed(stages=[]),
        changed(head={"name": "__import__('os').system('true')"}),
        changed(stem={"name": "conv3d_stem", "no_such": 1}),
        changed(stages=[config_json()["stages"][0]] * 2),
        changed(stages=[{**stage, "width": 10**7} for stage in config_json()["stages"]]),
        changed(stages=[{**stage, "depth": 10**7} for stage in config_json()["stages"]]),
        changed(stages=[{**stage, "width": 4096} for stage in config_json()["stages"]]),
        changed(latents={"channels": "sixteen"}),
    ],
)
def test_uploads_that_are_no_config(agent: RunningAgent, body: bytes) -> None:
    answer = agent.request("POST", "/jobs", params=SMALL, data=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert agent.request("GET", "/device").status_code == 200


def test_an_upload_that_is_too_large_leaves_nothing(agent: RunningAgent, tmp_path: Path) -> None:
    answer = agent.request("POST", "/jobs", params=SMALL, data=b" " * 1_000_001)
    assert answer.status_code == 413
    assert "1000000 bytes at most" in answer.json()["error"]


def test_unknown_routes_and_jobs(agent: RunningAgent) -> None:
    assert agent.request("GET", "/jobs/" + "0" * 32).status_code == 404
    assert agent.request("GET", "/jobs/..%2f..%2fetc%2fpasswd").status_code == 404
    assert agent.request("GET", "/").status_code == 404
    assert agent.request("GET", "/jobs").status_code == 405


def test_the_folder_and_the_port_are_its_own(
    agent: RunningAgent, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_AGENT_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port), "--folder", str(tmp_path / "a")]) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err
    with lock_folder(tmp_path / "a", ""):
        assert main(["serve", "--port", "0", "--folder", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert (
        error == f"error: {tmp_path / 'a'} is in use by another process: stop that agent or choose another --folder\n"
    )


def test_an_agent_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UserError, match=f"no agent answers at http://127.0.0.1:{port}: start it there"):
        open_device(f"http://127.0.0.1:{port}")
    for address in ("http://", "http://me:secret@mac:8765", "http://mac:8765?x=1"):
        with pytest.raises(UserError, match="expected an agent's address such as http://mac:8765"):
            open_device(address)


# What it survives


def test_jobs_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"height": 256, "width": 256, "frames": 17}
    with running_agent(tmp_path) as first:
        long_job = first.request("POST", "/jobs", params=slow, json=config_json(adapt(COG, COG.latents, 2))).json()
        waiting = first.request("POST", "/jobs", params=SMALL, json=config_json()).json()
        wait_for(first, long_job["id"], "running")
        assert first.request("GET", f"/jobs/{waiting['id']}").json()["state"] == "queued"
        first.process.kill()
        first.process.wait()
    database = tmp_path / "queue.db"
    assert database.exists() and len(list((tmp_path / "uploads").iterdir())) == 2
    with running_agent(tmp_path, "--time-limit", "1") as second:
        # The one that was cut off is first again; a second is too short for either, which ends only the measurement.
        for job in (long_job["id"], waiting["id"]):
            assert wait_for(second, job, "done", "failed")["error"] == "no result within 1 s"
        assert list((tmp_path / "uploads").iterdir()) == []
        again = second.request("POST", "/jobs", params=SMALL, json=config_json()).json()
        assert again["id"] == waiting["id"] and again["error"] is None, "what failed is tried again"
        monkeypatch.setenv("NAS_AGENT_TOKEN", TOKEN)
        with pytest.raises(MeasurementFailedError, match="no result within 1 s"):
            open_agent(second.address).latency(on_meta(QUICK), QUICK.latents, Workload(16, 16, 1))
