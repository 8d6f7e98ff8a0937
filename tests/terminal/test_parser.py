"""What commands print about themselves."""

import pytest

from nas.terminal.parser import command_line


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("postgresql://me:s3cr%40et@server/nas", "postgresql://me@server/nas"),
        ("--storage=postgresql+psycopg://me:x:y@server:5432/nas", "--storage=postgresql+psycopg://me@server:5432/nas"),
        ("postgresql://me@server:5432/nas", "postgresql://me@server:5432/nas"),
        ("http://mac:8765", "http://mac:8765"),
        ("runs/a:b@c", "runs/a:b@c"),
    ],
)
def test_a_command_line_is_printed_without_passwords(typed: str, printed: str) -> None:
    assert command_line("nas.search", ["--seed", "1", typed]) == f"python -m nas.search --seed 1 {printed}"
