"""Frozen dataclasses that are read back from JSON: every field there, none too many, each of its type."""

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def read_fields(cls: type[T], data: object) -> T:
    """The dataclass that `data`, read from JSON, describes; lists become tuples where a field is one.

    Raises:
        ValueError: something else than an object, a field missing, unknown or of another type, or a value that the
            class refuses.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"expected an object, got {_shown(data)}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(map(str, data.keys() - fields.keys())):
        raise ValueError(f"'{unknown[0]}' is not known")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _checked(name, data[name], hints[name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"'{name}' is missing")
    return cls(**values)


def _checked(name: str, value: object, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        try:
            return read_fields(hint, value)  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"'{name}': {error}") from error
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple) and dataclasses.is_dataclass(arguments[0]):
        return tuple(_checked(f"{name}[{index}]", each, arguments[0]) for index, each in enumerate(value))
    if typing.get_origin(hint) is dict and isinstance(value, dict) and dataclasses.is_dataclass(arguments[1]):
        return {key: _checked(f"{name}[{key}]", each, arguments[1]) for key, each in value.items()}
    if not _fits(value, hint):
        raise ValueError(f"'{name}' has to be {_written(hint)}, got {_shown(value)}")
    return tuple(value) if typing.get_origin(hint) is tuple and isinstance(value, list) else value


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(each, arguments[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(each, arguments[1]) for each in value.values())
    if hint is Any:
        return True
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _written(hint: Any) -> str:
    """A type in words."""
    words = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false", type(None): "null"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_written, typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (tuple, dict):
        kind = "a list" if typing.get_origin(hint) is tuple else "an object"
        return f"{kind} whose values are each {_written(typing.get_args(hint)[-1 if kind == 'an object' else 0])}"
    return words.get(hint, "anything")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
