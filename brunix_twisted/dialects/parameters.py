"""How each parameter of a request is treated: declared in its type, and reported to the caller."""

from __future__ import annotations

import re
from functools import cache
from itertools import islice
from typing import Final, get_type_hints

import attrs

from brunix_twisted.dialects.decode import Element, is_known, keys

# Names that can be reported in a header, and the maximum number of undocumented ones.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MAX_UNKNOWN: Final = 16


@attrs.frozen
class Treatment:
    """How a parameter is treated."""

    effect: str = ""
    """Description for the reference page; empty for none."""


class Honoured(Treatment):
    """The parameter does what its API documents."""


class Refused(Treatment):
    """Some values are rejected with status 400; other values have no effect."""


class Ignored(Treatment):
    """The parameter has no effect. This is the default."""


class Parameters(Element, frozen=True, kw_only=True):
    """A JSON object whose keys are parameters. A field's type may declare its treatment."""


@cache
def treatments(parameters: type[Parameters]) -> dict[str, Treatment]:
    """Return the treatment of each parameter of a subclass of :class:`Parameters`."""
    hints = get_type_hints(parameters, include_extras=True)
    return {
        name: next(
            (note for note in getattr(hints[name], "__metadata__", ()) if isinstance(note, Treatment)), Ignored()
        )
        # In the order of the class; a Struct puts the required ones elsewhere.
        for name in hints
        if name in parameters.__struct_fields__
    }


def ignored(request: Parameters, body_bytes: bytes) -> tuple[str, ...]:
    """
    Return the names of the sent parameters that have no effect; nested ones as ``stream_options.name``.

    Null counts as not sent. Parameters that the API does not document come last, at most sixteen.

    :param body_bytes: the request's body, a JSON object.
    """
    names = _ignored(request)
    if is_known(request):
        return names
    known = treatments(type(request))
    unknown = (name for name in keys(body_bytes) if name not in known and _NAME.fullmatch(name))
    return (*names, *islice(unknown, _MAX_UNKNOWN))


def _ignored(request: Parameters) -> tuple[str, ...]:
    names: list[str] = []
    for name, treatment in treatments(type(request)).items():
        value = getattr(request, name)
        if value is None:
            continue
        if isinstance(treatment, Ignored):
            names.append(name)
        elif isinstance(value, Parameters):
            names += [f"{name}.{inner}" for inner in _ignored(value)]
    return tuple(names)
