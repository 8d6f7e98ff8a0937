"""Files from the Hugging Face hub at a pinned revision: from the local cache, else downloaded."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.machine.reading import why
from nas.terminal.errors import UserError


def is_cached(repository: str, revision: str, names: Sequence[str]) -> bool:
    """Whether all of these files are in the local cache; the hub is not asked."""
    from huggingface_hub import try_to_load_from_cache

    return all(isinstance(try_to_load_from_cache(repository, name, revision=revision or None), str) for name in names)


def fetch_files(repository: str, revision: str, names: Sequence[str], *, what: str, instead: str) -> list[Path]:
    """Paths of these files on this machine, in the order of `names`; what is not cached is downloaded.

    Args:
        repository: `owner/name`.
        revision: commit, tag or branch of the repository.
        names: paths of the files inside the repository.
        what: what the files are, as a plural; error messages begin with it.
        instead: what a user can do without the hub; error messages end with it.

    Raises:
        UserError: the files are not cached, and the hub cannot be reached or does not give them.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # The HTTP library below the hub's client changed over its releases; its errors are the bases of the client's.
    client_errors: tuple[Any, ...] = HfHubHTTPError.__bases__

    def fetch(*, cached: bool) -> list[Path]:
        return [Path(hf_hub_download(repository, name, revision=revision, local_files_only=cached)) for name in names]

    try:
        return fetch(cached=True)
    except LocalEntryNotFoundError:
        if not _reachable(constants.ENDPOINT):
            raise UserError(f"{what} are not cached and {constants.ENDPOINT} cannot be reached: {instead}") from None
    except OSError as error:
        raise UserError(f"{what} cannot be read from the hub's cache ({why(error)}): {instead}") from error
    try:
        return fetch(cached=False)
    except (*client_errors, OSError) as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise UserError(f"{what} could not be downloaded ({reason}): {instead}") from error


def _reachable(address: str) -> bool:
    """Whether anything answers there within five seconds (the hub's client would retry for half a minute)."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # a refusal is an answer too
    except (OSError, ValueError, http.client.HTTPException):
        return False  # ValueError: HF_ENDPOINT is not an address
