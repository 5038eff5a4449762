"""Options of models and methods: typed, validated, self-describing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

from invsolve.errors import OptionError, nearest


class Options(pydantic.BaseModel):
    """Base of every model's and method's options; subclasses declare `name: type = Field(default, description=...)`.

    Frozen; an unknown name is refused. Text values, as they come from a command line, are converted.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def parse_options(cls: type[AnyOptions], values: Mapping[str, Any], owner: str) -> AnyOptions:
    """Validate `values` as the options of `owner` (such as "method 'bfgs'").

    Raises:
        OptionError: an unknown name (with the nearest valid one) or a value of the wrong type or out of range.
    """
    for key in values:
        if key not in cls.model_fields:
            raise OptionError(f"{owner} has no option '{key}'; {nearest(key, cls.model_fields)}")
    try:
        return cls(**values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # a rule over several options, from a model validator
            raise OptionError(f"options of {owner}: {first['msg'].removeprefix('Value error, ')}") from None
        key = str(first["loc"][0])
        raise OptionError(
            f"option '{key}' of {owner}: {first['msg']}, found {first['input']!r}; {describe_field(cls, key)}"
        ) from None


def describe_field(cls: type[Options], key: str) -> str:
    """One line on an option: its type, limits, default and meaning."""
    field = describe_options(cls)[key]
    limits = f" {field['limits']}" if field["limits"] else ""
    return f"it takes {field['type']}{limits}, default {field['default']}"


def describe_options(cls: type[Options]) -> dict[str, dict[str, Any]]:
    """Every option's `type`, `limits`, `default` and `description`, as shown by `models show` and `methods show`."""
    described = {}
    for key, field in cls.model_fields.items():
        limits = [
            f"{sign} {getattr(mark, attribute):g}"
            for mark in field.metadata
            for attribute, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
            if getattr(mark, attribute, None) is not None
        ]
        described[key] = {
            "type": _type_text(field.annotation),
            "limits": ", ".join(limits),
            "default": "required" if field.is_required() else field.get_default(),
            "description": field.description or "",
        }
    return described


def _type_text(annotation: Any) -> str:
    if getattr(annotation, "__args__", None) is None:
        return str(getattr(annotation, "__name__", annotation))
    parts = [
        "none" if a is type(None) else _type_text(a) if hasattr(a, "__name__") or hasattr(a, "__args__") else str(a)
        for a in annotation.__args__
    ]
    return "|".join(parts)


def split_assignments(assignments: list[str], flag: str) -> dict[str, str]:
    """`["key=value", ...]` as a dict; the last of a repeated key wins.

    Raises:
        OptionError: an item without "=" or without a key.
    """
    pairs = {}
    for item in assignments:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise OptionError(f"{flag} takes key=value, found '{item}'")
        pairs[key.strip()] = value.strip()
    return pairs


def to_json(options: Options) -> str:
    """The options as the JSON text that dataset and solution files carry."""
    return json.dumps(options.model_dump(mode="json"))
