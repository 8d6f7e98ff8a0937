"""Frozen dataclasses from JSON that somebody may have edited: every field is checked before one is made."""

import dataclasses
from collections.abc import Mapping
from math import isfinite
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_primitives(kind: type[T], data: Any) -> T:
    """The value of the dataclass `kind` that `dataclasses.asdict` made `data` of.

    Fields may be str, int, float, bool, literals, dataclasses, tuples of one type and dicts by str.

    Raises:
        ValueError: a field is missing, unknown, or of another type; the message names it.
    """
    value: T = _value(kind, data, "it")
    return value


def _value(hint: Any, data: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, data, name)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise _wrong(name, "a list", data)
        return tuple(_value(arguments[0], each, f"{name}[{index}]") for index, each in enumerate(data))
    if origin is dict:
        return {key: _value(arguments[1], each, f"{name}.{key}") for key, each in _object(data, name).items()}
    if origin is Literal:
        if data not in arguments:
            raise _wrong(name, " or ".join(map(repr, arguments)), data)
        return data
    return _plain(hint, data, name)


def _dataclass(hint: Any, data: Any, name: str) -> Any:
    given, hints = _object(data, name), get_type_hints(hint)
    fields = {field.name: field for field in dataclasses.fields(hint)}
    unknown = sorted(given.keys() - fields.keys())
    missing = [each for each in fields if each not in given and fields[each].default is dataclasses.MISSING]
    for names, problem in ((missing, "is missing"), (unknown, "is not known")):
        if names:
            raise ValueError(f"{name}.{names[0]} {problem}")
    return hint(**{each: _value(hints[each], given[each], f"{name}.{each}") for each in fields if each in given})


def _plain(hint: Any, data: Any, name: str) -> Any:
    if hint is float:
        # JSON of a float that happens to be whole may be written as an int; it stays one.
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise _wrong(name, "a number", data)
        try:
            finite = isfinite(data)
        except OverflowError:
            finite = False
        if not finite:
            raise _wrong(name, "a finite number", data)
        return data
    if (hint is int and isinstance(data, bool)) or not isinstance(data, hint):
        raise _wrong(name, {int: "a whole number", str: "a text", bool: "true or false"}[hint], data)
    return data


def _object(data: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise _wrong(name, "an object", data)
    return data


def _wrong(name: str, expected: str, found: Any) -> ValueError:
    text = str(found) if not isinstance(found, int) or abs(found) < 10**20 else "a number of many digits"
    return ValueError(f"{name}: expected {expected}, got {text[:80]!r}")
