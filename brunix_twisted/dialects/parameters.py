"""What is done with the parameters of a request, whatever its API: their types say it, and callers are told."""

from __future__ import annotations

import re
from functools import cache
from itertools import islice
from typing import Final, get_type_hints

import attrs

from brunix_twisted.dialects.decode import keys

# What looks like the name of a parameter, and may stand in a header; and how many of those that nobody knows are named.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MOST_UNKNOWN: Final = 16


@attrs.frozen
class Treatment:
    """What is done with a parameter."""

    effect: str = ""
    """For the reference page: what it does here. Empty: nothing to say."""


class Honoured(Treatment):
    """It does what its API says."""


class Refused(Treatment):
    """Some of its values are answered with 400, the others have no effect."""


class Ignored(Treatment):
    """It has no effect; so do all that say nothing."""


@attrs.frozen(kw_only=True)
class Parameters:
    """A JSON object whose keys are parameters. Each may say its treatment in its type."""


@cache
def treatments(parameters: type) -> dict[str, Treatment]:
    """Say how each parameter of a subclass of :class:`Parameters` is treated."""
    hints = get_type_hints(parameters, include_extras=True)
    return {
        field.name: next(
            (note for note in getattr(hints[field.name], "__metadata__", ()) if isinstance(note, Treatment)), Ignored()
        )
        for field in attrs.fields(parameters)
    }


def ignored(request: Parameters, body_bytes: bytes) -> tuple[str, ...]:
    """
    Name the parameters that were sent and have no effect, those inside another as ``stream_options.name``.

    One sent as null counts as absent. Last come those of the body that no document lists, up to sixteen.

    :param body_bytes: what the request was read from, a JSON object.
    """
    parameters: type = type(request)  # named, for mypy takes no type[Parameters] where a cache wants a Hashable
    known = treatments(parameters)
    unknown = (name for name in keys(body_bytes) if name not in known and _NAME.fullmatch(name))
    return (*_ignored(request), *islice(unknown, _MOST_UNKNOWN))


def _ignored(request: Parameters) -> list[str]:
    names: list[str] = []
    parameters: type = type(request)
    for name, treatment in treatments(parameters).items():
        value = getattr(request, name)
        if value is None:
            continue
        if isinstance(treatment, Ignored):
            names.append(name)
        elif isinstance(value, Parameters):
            names += [f"{name}.{inner}" for inner in _ignored(value)]
    return names
