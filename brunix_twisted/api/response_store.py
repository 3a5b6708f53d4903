"""Stores answers by their ids, to continue their engine sessions and to retrieve them."""

from __future__ import annotations

from brunix_twisted.runtime.coroutines import attempt
from brunix_twisted.state import StateStore, StoredResponse


class ResponseStore:
    """
    Stores answers by their unguessable ids, each for its caller.

    All methods belong to the reactor's thread.
    """

    def __init__(self, store: StateStore) -> None:
        """Use a store."""
        self._store = store

    async def keep(self, response_id: str, session_id: str, caller: bytes, body_bytes: bytes | None) -> None:
        """
        Store a complete answer.

        :param session_id: its engine session.
        :param caller: see :meth:`brunix_twisted.api.sessions.Sessions.identify`.
        :param body_bytes: the body to retrieve; None if the client asked not to store it.
        """
        response = StoredResponse(session_id, caller, body_bytes)
        await attempt(self._store.put_response, response_id, response)

    async def body_of(self, response_id: str, caller: bytes) -> bytes | None:
        """Return the body of an answer; None if it is not stored, has expired, or is another caller's."""
        response = await attempt(self._store.get_response, response_id)
        return None if response is None or response.caller != caller else response.body_bytes

    async def forget(self, response_id: str) -> None:
        """Remove an answer, if it is stored."""
        await attempt(self._store.delete_response, response_id)
