"""One request to an agent and its answer: the one place where whatever can be wrong with either becomes one line."""

import http.client
import json
import queue
import re
import threading
from typing import Any
from urllib.parse import urlsplit

import requests

from nas.latency.agent import TOKEN_VARIABLE, transfer_limit_s
from nas.terminal.errors import UserError, without_secrets

_TIMEOUT_S = (5.0, 30.0)
"""Seconds to connect, and between two bytes of an answer."""

_LARGEST_ANSWER = 16_000_000
"""Largest answer that is read, in bytes."""

_CHUNK = 65_536
_MAX_REASON = 2000
"""Longest reason of another program that is repeated: four settings of the compute units have one each."""


class NoAnswerError(Exception):
    """Nobody answers there at the moment, which may change: an agent may be started again while a search waits."""


def check_address(address: str) -> str:
    """The address of an agent without a slash at its end.

    Raises:
        UserError: it is none.
    """
    try:
        parts = urlsplit(address)
        # Reading the port checks it; encoding the host does what the system's resolver will.
        is_address = bool(parts.hostname) and parts.port != 0 and bool(parts.netloc.encode("idna"))
    except ValueError:
        is_address = False
    plain = address.isprintable() and not re.search(r"[\s\\]", address)
    known = is_address and plain and parts.scheme in ("http", "https")
    if not known or parts.username is not None or parts.query or parts.fragment:
        shown = without_secrets(address).encode("ascii", "backslashreplace").decode()
        raise UserError(f"expected an agent's address such as http://mac:8765 (no user, no query), got {shown}")
    return address.rstrip("/")


def check_token(token: str, source: str) -> str:
    """A bearer token that can be sent in a header; UserError, naming its source, if it is none."""
    if not re.fullmatch(r"[!-~]+", token):
        raise UserError(f"the token in {source} has to be letters, digits and signs of ASCII without spaces")
    return token


def ask(
    session: requests.Session, method: str, address: str, path: str, token: str | None, **arguments: Any
) -> dict[str, Any]:
    """The JSON object that an agent answers with.

    The whole exchange has an end, however slowly the agent sends: it runs in a thread that is left behind then.

    Raises:
        NoAnswerError: nobody answers.
        UserError: the agent refuses, says that it is broken, is none, or takes too long to answer.
    """
    limit_s = transfer_limit_s(len(arguments.get("data", b"")))
    found: queue.SimpleQueue[tuple[requests.Response, bytes] | Exception] = queue.SimpleQueue()

    def exchange() -> None:
        try:
            found.put(_exchange(session, method, address + path, token, arguments))
        except Exception as error:
            found.put(error)

    threading.Thread(target=exchange, daemon=True).start()
    try:
        outcome = found.get(timeout=limit_s)
    except queue.Empty as error:
        raise UserError(
            f"the agent at {address} has not answered {method} {path} in full after {limit_s:g} s: see what it is "
            f"doing there, then run this again"
        ) from error
    if isinstance(outcome, Exception):
        raise _explained(address, outcome) from outcome
    answer, body = outcome
    return _read(address, path, answer, body)


def _exchange(
    session: requests.Session, method: str, url: str, token: str | None, arguments: dict[str, Any]
) -> tuple[requests.Response, bytes]:
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
    with session.request(
        method, url, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False, stream=True, **arguments
    ) as answer:
        body = b""
        for chunk in answer.iter_content(_CHUNK):
            body += chunk
            if len(body) > _LARGEST_ANSWER:
                break
        return answer, body


def _explained(address: str, error: Exception) -> Exception:
    """The error that says what an exchange has failed by."""
    reason = one_line(error)
    if isinstance(error, requests.exceptions.SSLError):
        return UserError(
            f"{address} cannot be reached by TLS ({reason}): an agent speaks plain HTTP, give http:// or a proxy whose "
            f"certificate is valid"
        )
    if "BadStatusLine" in reason:
        return UserError(f"{address} is not an agent: what answers there does not speak HTTP")
    # All of requests' own are OSErrors; a name that cannot be encoded for the resolver is a UnicodeError.
    if isinstance(error, (OSError, http.client.HTTPException, UnicodeError)):
        return NoAnswerError(reason)
    return error


def _read(address: str, path: str, answer: requests.Response, body: bytes) -> dict[str, Any]:
    if answer.status_code == 401:
        raise UserError(f"the agent at {address} wants another token: set {TOKEN_VARIABLE} to the one it was given")
    if 300 <= answer.status_code < 400:
        target = one_line(answer.headers.get("Location", "elsewhere"))
        raise UserError(f"{address} is not an agent: it redirects {path} to {target}; give the agent's own address")
    content_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" or len(body) > _LARGEST_ANSWER:
        what = f"more than {_LARGEST_ANSWER} bytes" if len(body) > _LARGEST_ANSWER else one_line(content_type or "none")
        raise UserError(f"{address} is not an agent: its answer to {path} ({answer.status_code}) is not JSON ({what})")
    try:
        content = json.loads(body, parse_constant=_no_constant)
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{address} is not an agent: its answer to {path} is not JSON ({one_line(error)})") from error
    if content.get("broken") is not None and content.get("state") not in ("done", "failed"):
        raise UserError(
            f"the agent at {address} is broken: {one_line(content['broken'])}; mend that there, then run this again"
        )
    if answer.status_code >= 400:
        reason = one_line(content.get("error"))
        raise UserError(f"the agent at {address} refuses ({answer.status_code}): {reason}")
    return content


def one_line(text: object) -> str:
    """What somebody else says, fit to be part of a message: one line, not endless, nothing that moves a cursor."""
    words = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:_MAX_REASON]


def _no_constant(name: str) -> float:
    raise ValueError(f"it holds {name}")
