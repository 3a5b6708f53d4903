"""The stop sequences of a request, as every dialect has them."""

from __future__ import annotations

from typing import Final

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

# Searching for them takes some hundreds of bytes of memory for each character; nobody's marker is a page long.
MOST_STOP_CHARACTERS: Final = 4096


def stop_sequences(stop: str | list[str] | None, param: str, *, at_most: int | None = None) -> tuple[str, ...]:
    """
    Take a request's stop sequences, one alone or a list.

    :param param: the name of the request's parameter.
    :raises GatewayError: INVALID_REQUEST for more than ``at_most`` of them, or more text than is worth searching for.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if at_most is not None and len(stops) > at_most:
        raise GatewayError(
            errors.INVALID_REQUEST, f"'{param}' has {len(stops)} sequences; at most {at_most} are allowed", param=param
        )
    characters = sum(map(len, stops))
    if characters > MOST_STOP_CHARACTERS:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'{param}' has {characters} characters; at most {MOST_STOP_CHARACTERS} are allowed",
            param=param,
        )
    # An empty sequence stands everywhere and would end every answer before it began: it says nothing.
    return tuple(sequence for sequence in stops if sequence)
