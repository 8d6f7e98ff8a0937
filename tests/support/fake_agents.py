"""Servers on a loopback address that are no agents, or bad ones; and an agent inside of the test's own process."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn

from nas.latency.agent.connections import BoundedConnection
from nas.latency.agent.folder import claim_folder, prepare_folder
from nas.latency.agent.queue import Queue
from nas.latency.agent.server import Agent, _listen
from nas.latency.agent.services import Service
from nas.latency.agent.worker import Worker
from tests.support.agents import TOKEN

JOB = "0123456789abcdef" * 2

OFFER: dict[str, Any] = {
    "name": "host",
    "description": "a box (x86_64 CPU, 1 thread)",
    "accepts": "config",
    "runtime": "pytorch",
    "dtype": "float32",
    "longest_s": 900.0,
    "largest_upload": 10**6,
    "broken": None,
}
RECORD: dict[str, Any] = {
    "ms_per_frame": 2.0,
    "kind": "measured",
    "device": "a box (x86_64 CPU, 1 thread)",
    "method": "median of 3 decodes",
    "height": 16,
    "width": 16,
    "num_frames": 1,
    "dtype": "float32",
    "error": 0.1,
    "by_stage": {"stem": 0.5, "head": 1.5},
    "details": {},
}
DONE: dict[str, Any] = {"id": JOB, "state": "done", "record": RECORD, "error": None, "ahead": 0, "broken": None}

Answer = tuple[int, str, bytes]
"""Status, content type and body of an answer."""


def as_json(content: object, status: int = 200) -> Answer:
    """An answer with this content, which may hold NaN."""
    return status, "application/json", json.dumps(content).encode()


@contextmanager
def answering(answer: Callable[[str, str], Answer]) -> Iterator[str]:
    """The address of a server that answers each request by its method and path; a redirect goes to /elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content_type, body = answer(self.command, self.path)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def speaking(data: bytes, every_s: float, most: int = 200) -> Iterator[str]:
    """The address of a server that sends one byte of `data` after the other, at most so many, then is silent."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    for number in range(min(most, len(data))):
                        if stop.wait(every_s):
                            return
                        try:
                            connection.sendall(data[number : number + 1])
                        except OSError:
                            break
                    else:
                        stop.wait(5)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


@contextmanager
def serving(folder: Path, service: Service) -> Iterator[str]:
    """The address of an agent that runs in threads of this process."""
    claim_folder(folder)
    queue = Queue(folder)
    prepare_folder(folder, set(queue.waiting()))
    worker = Worker(service, queue)
    app = Agent(service, queue, worker, folder, 10**7).make_app(TOKEN)
    config = uvicorn.Config(app, log_level="critical", http=BoundedConnection, lifespan="off", ws="none")
    with _listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        worker.start()
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            worker.stop(30)
            server.should_exit = True
            thread.join(30)
