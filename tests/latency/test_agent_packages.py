"""A package on its way to an agent for Core ML: converted, packed, sent, unpacked, loaded; only Core ML is not here."""

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import uvicorn

from nas.latency import MeasurementFailedError, Workload
from nas.latency.agent.client import open_agent
from nas.latency.agent.folder import prepare_folder
from nas.latency.agent.queue import Queue
from nas.latency.agent.server import Agent, _listen
from nas.latency.agent.services import CoreMLService
from nas.latency.agent.worker import Worker
from nas.latency.measurement.core_ml import UNITS
from search_spaces import Decoder
from tests.support.agents import QUICK, TOKEN


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The agent of a Mac, on any system."""
    service, queue = CoreMLService("coreml", "a Mac"), Queue(folder)
    prepare_folder(folder, set())
    worker = Worker(service, queue)
    agent = Agent(service, queue, worker, folder, 10**7)
    with _listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(agent.make_app(TOKEN), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        worker.start()
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            worker.stop(60)
            server.should_exit = True
            thread.join()


@pytest.mark.slow
@pytest.mark.skipif(platform.system() == "Darwin", reason="Core ML would run it")
def test_a_package_arrives_and_is_loaded_by_every_compute_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_AGENT_TOKEN", TOKEN)
    with torch.device("meta"):
        decoder = Decoder(QUICK)
    with serving(tmp_path) as address:
        device = open_agent(address)
        offer = device.offer
        assert (offer.accepts, device.runtime, offer.description) == ("package", "coreml", "a Mac")
        with pytest.raises(MeasurementFailedError, match="no setting of the compute units") as failed:
            device.latency(decoder, QUICK.latents, Workload(16, 16, 1))
    # Each process has read the package's inputs and got as far as asking Core ML for frames.
    for units in UNITS:
        assert units in str(failed.value)
    assert str(failed.value).count("prediction is only supported on macOS") == len(UNITS), failed.value
    assert not list((tmp_path / "incoming").iterdir())
