"""The stop sequences of a request, for all dialects."""

from __future__ import annotations

from typing import Final

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError

# The search needs some hundreds of bytes of memory per character, and real stop sequences are short.
MAX_STOP_CHARACTERS: Final = 4096


def stop_sequences(stop: str | list[str] | None, param: str, *, max_count: int | None = None) -> tuple[str, ...]:
    """
    Return a request's stop sequences, which may be sent as one text or as a list.

    :param param: name of the request's parameter, for errors.
    :raises GatewayError: INVALID_REQUEST for more than ``max_count`` sequences, or ``MAX_STOP_CHARACTERS`` characters.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if max_count is not None and len(stops) > max_count:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'{param}' has {len(stops)} sequences; at most {max_count} are allowed",
            param=param,
        )
    characters = sum(map(len, stops))
    if characters > MAX_STOP_CHARACTERS:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'{param}' has {characters} characters; at most {MAX_STOP_CHARACTERS} are allowed",
            param=param,
        )
    # An empty sequence would end every answer at its beginning, so it is ignored.
    return tuple(sequence for sequence in stops if sequence)
