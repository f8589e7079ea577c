"""A head as a user names it: ``protobin``, or with options ``protobin:per_class=10,dropout=0.2``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from featcache.errors import InputError
from featcache.heads.table import head_spec


@dataclass(frozen=True)
class Choice:
    """A head and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How it is named in tables, and what ``parse_choice`` reads."""
        own = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(self.options.items()))
        return f"{self.name}:{own}" if own else self.name


def parse_choice(text: str) -> Choice:
    """Read NAME or NAME:OPTION=VALUE,…; values are numbers, true, false or words.

    Raises:
        InputError: no head of that name, or an option without a value.

    >>> parse_choice("protobin:per_class=10,dropout=0.2")
    Choice(name='protobin', options={'per_class': 10, 'dropout': 0.2})
    """
    name, _, rest = text.partition(":")
    spec = head_spec(name)
    options = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise InputError(f"head {text!r}: {part!r} has no value; wanted {name}:option=value")
        options[key.strip()] = _value(value.strip())
    return Choice(spec.name, options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
