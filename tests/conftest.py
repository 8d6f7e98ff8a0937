"""How test processes and their children run."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer, postgres_server

# Tests run side by side, and more threads than cores are slow.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell that runs something in the background lets it ignore Ctrl-C, which children would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server of their own for the tests of a file."""
    with postgres_server() as found:
        yield found
