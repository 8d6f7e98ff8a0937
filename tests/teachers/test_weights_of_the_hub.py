"""Weights that are neither here nor to be had from the hub."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def hub(status: int) -> Iterator[str]:
    """A server that answers everything with this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def silent_host() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def check_offer(address: str, tmp_path: Path, expected: str) -> float:
    """`--teacher wan` ends with status 2 and one line that says what else can be done.

    Returns:
        The seconds that it took.
    """
    start = time.monotonic()
    command = [sys.executable, "-m", "nas.search", "--teacher", "wan", "--latency-budget", "30ms"]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": address}
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "run")], env=environment, capture_output=True, text=True, timeout=60
    )
    seconds = time.monotonic() - start
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the weights of 'wan' (Wan-AI/Wan2.1-T2V-1.3B-Diffusers)") and expected in line
    assert line.endswith("give a local copy with --teacher-weights PATH, or use --teacher wan-tiny")
    assert not (tmp_path / "run").exists()
    return seconds


def check_without_network(tmp_path: Path) -> float:
    """Nothing is cached and nobody listens where the hub should be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    return check_offer(address, tmp_path, f"are not cached and {address} cannot be reached")


def test_no_network_and_nothing_cached(tmp_path: Path) -> None:
    check_without_network(tmp_path)


@pytest.mark.timing
def test_without_network_it_soon_ends(tmp_path: Path) -> None:
    assert check_without_network(tmp_path) < 15


@pytest.mark.timing
def test_a_hub_that_never_answers_is_soon_given_up(tmp_path: Path) -> None:
    with silent_host() as address:
        assert check_offer(address, tmp_path, f"are not cached and {address} cannot be reached") < 25


@pytest.mark.slow
def test_a_hub_that_has_no_such_file(tmp_path: Path) -> None:
    with hub(404) as address:
        check_offer(address, tmp_path, "could not be downloaded (Client error '404 Not Found'")
