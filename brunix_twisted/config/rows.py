"""The rows of the table of settings, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from brunix_twisted.config.addresses import AddressError
from brunix_twisted.config.rules import Rule, SettingError, quotes_hint


@attrs.frozen
class Row:
    """One setting, as the documentation, the command line and the environment use it."""

    variable: str
    option: str
    """The name of the long option, without dashes."""
    default: str
    rule: Rule
    meaning: str


def setting(variable: str, default: str, rule: Rule, meaning: str) -> Any:  # noqa: ANN401 - attrs.field returns Any too
    """Declare a setting in a class of settings."""
    return attrs.field(
        default=rule.read(default),
        # A rule that hides something in messages hides all of it here.
        repr=rule.shown is str,
        metadata={"variable": variable, "default": default, "rule": rule, "meaning": meaning},
    )


def rows_of(settings: type[Any]) -> Iterator[tuple[str, Row]]:
    """Yield the attribute's name and the row of every setting of a class, in order."""
    for field in attrs.fields(settings):
        variable = field.metadata["variable"]
        option = variable.partition("_")[2].lower().replace("_", "-")
        yield field.name, Row(option=option, **field.metadata)


def read_values(
    rows: Iterable[tuple[str, Row]], environment: Mapping[str, str], options: Mapping[str, str | None]
) -> dict[str, Any]:
    """
    Return the values that an environment and a command line set, by attribute.

    :raises SettingError: for the first value that is not allowed.
    """
    values: dict[str, Any] = {}
    for name, row in rows:
        text, source = options.get(row.option), f"--{row.option} ({row.variable})"
        if text is None:
            text, source = environment.get(row.variable, "").strip(), row.variable
            if not text:
                continue
        try:
            values[name] = row.rule.read(text.strip())
        except AddressError as fault:
            raise SettingError(source, row.rule.shown(text), f"{row.rule.allowed}; {fault}") from None
        except ValueError:
            raise SettingError(source, row.rule.shown(text), row.rule.allowed + quotes_hint(text)) from None
    return values
