"""Damages JSON as disks, editors and other programs do: in its bytes, and in its keys and values. Seeded."""

import copy
import json
import random
from typing import Any

_JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 0.5, -0.5, 1e308, 10**18, -(10**18), 10**400, "", "x", "8", "\udcff", "\0"),
    *([], {}, [[]], [None], {"": {}}, {"x": 1}, [1] * 50, "a/b", "../a", "a" * 300),
)


def damaged_bytes(content: Any, generator: random.Random) -> bytes:
    """JSON of `content` with some bytes cut off, changed, removed, doubled or put before it."""
    data = bytearray(json.dumps(content).encode())
    place, length = generator.randrange(len(data)), generator.randrange(1, 40)
    kind = generator.randrange(7)
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        data[place : place + length] = generator.randbytes(length)
    elif kind == 2:
        del data[place : place + length]
    elif kind == 3:
        data[place:place] = data[place : place + length]
    elif kind == 4:
        return b"\xef\xbb\xbf" + bytes(data)
    elif kind == 5:
        data[place:place] = generator.choice([b"NaN", b"[" * 100_000, b"9" * 5000, b"\xff", b"\n", b"-Infinity"])
    else:
        return generator.choice(
            [b"", b"[]", b"{}", b"null", b"1", b'"x"', b"\0" * 99, bytes(data) * 2, bytes(data[::-1])]
        )
    return bytes(data)


def damaged_json(content: Any, generator: random.Random) -> bytes:
    """JSON of `content` with one value or key somewhere in it replaced, removed, or added."""
    changed = copy.deepcopy(content)
    owners = [changed]
    for owner in owners:
        members = owner.values() if isinstance(owner, dict) else owner
        owners += [each for each in members if isinstance(each, dict | list) and each]
    owner = generator.choice(owners)
    keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
    key, junk = generator.choice(keys), copy.deepcopy(generator.choice(_JUNK))
    kind = generator.randrange(4)
    if kind == 0:
        del owner[key]
    elif kind == 1 and isinstance(owner, dict):
        owner[generator.choice([f"{key}x", "", str(key).upper()])] = owner.pop(key)
    elif kind == 2 and isinstance(owner, dict):
        owner["new"] = junk
    else:
        owner[key] = junk
    return json.dumps(changed).encode()
