"""Why a disk refused something, in words, and what to do: for errors of Python and of libraries that write files."""

import errno
import os
import re
from collections.abc import Iterator

_OTHER_PLACE = "free space or choose another folder"
_REASONS = {
    errno.ENOSPC: ("the disk is full", _OTHER_PLACE),
    errno.EDQUOT: ("the disk quota is used up", _OTHER_PLACE),
    errno.EROFS: ("the disk is read-only", _OTHER_PLACE),
    errno.EACCES: ("permission is denied", _OTHER_PLACE),
    errno.EPERM: ("permission is denied", _OTHER_PLACE),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _OTHER_PLACE),
    errno.ENOENT: ("there is no such file or folder (any more)", "check the path"),
    errno.EEXIST: ("it is there already", "choose another path"),
    errno.EISDIR: ("it is a folder, not a file", "choose another path"),
    errno.ENOTEMPTY: ("the folder is not empty", "choose another path"),
    errno.ENAMETOOLONG: ("a name in the path is too long", "choose a shorter one"),
    errno.ELOOP: ("links lead in a circle", "choose another path"),
    errno.EILSEQ: ("this disk does not take such a name", "choose another name"),
    errno.EFBIG: ("the file is larger than the disk or the shell allows", _OTHER_PLACE),
    errno.EIO: ("the disk cannot be read or written", "check the disk or choose a folder on another one"),
    errno.ESTALE: ("the network disk has lost it", "try again or choose a folder on another disk"),
    errno.EMFILE: ("too many files are open", "raise the limit with ulimit -n"),
    errno.ENFILE: ("too many files are open", "close other programs"),
}
"""Number of a system's error -> what it means, and what to do."""

_OF_ANY_LIBRARY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
"""Errors that only a disk gives: recognised by their words, too, in errors that are not the system's own."""

_NUMBERED = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
"""How Python and Rust write the number of a system's error into a text."""


def disk_reason(error: BaseException) -> tuple[str, str] | None:
    """What the disk refused and what to do; None if the error is about something else.

    Libraries wrap what the disk said in errors of their own: their causes and their texts are looked at, too.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return _REASONS.get(error.errno)
    for each in _chain(error):
        number = each.errno if isinstance(each, OSError) and each.errno is not None else _number(str(each))
        if number in _OF_ANY_LIBRARY:
            return _REASONS[number]
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _number(text: str) -> int | None:
    found = _NUMBERED.search(text)
    if found:
        return int(found[1] or found[2])
    return next((number for number in _OF_ANY_LIBRARY if os.strerror(number) in text), None)
