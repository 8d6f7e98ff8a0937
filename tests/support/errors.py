"""How a call is refused."""

from collections.abc import Callable

import pytest

from nas.terminal.errors import UserError


def refusal(call: Callable[[], object]) -> str:
    """The message of the UserError that `call` raises; one line."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message
