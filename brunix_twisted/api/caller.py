"""Who sends a request: what the gateway can tell callers apart by. It verifies none of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from twisted.internet.interfaces import IAddress
from twisted.web.iweb import IRequest

from brunix_twisted.api.session_ids import is_placeholder
from brunix_twisted.config.trusted_proxies import TrustedProxies
from brunix_twisted.model import EditorContext

_CREDENTIALS = (b"authorization", b"x-api-key")


def caller_of(request: IRequest, proxies: TrustedProxies) -> Sequence[bytes]:
    """
    Return what distinguishes the caller of a request from others: its credentials, its user and its address.

    The user and the address are those that a trusted proxy names; without one, there is no user, and the address is
    the peer's. All loopback addresses are one, because a client on this machine may use any of them.
    """
    headers = request.requestHeaders
    host = _host(request.getClientAddress())
    forwarded: Sequence[bytes] = ()
    users: Sequence[bytes] = ()
    if proxies and proxies.trusts(host):
        forwarded = headers.getRawHeaders(b"x-forwarded-for", ())
        users = headers.getRawHeaders(b"x-forwarded-user", ())
    address = proxies.client_of(host, (value.decode("latin-1") for value in forwarded))
    credentials = (b"\n".join(headers.getRawHeaders(name, ())) for name in _CREDENTIALS)
    return (*credentials, b"\n".join(users), address.encode("latin-1"))


def _host(peer: IAddress) -> str | None:
    host = getattr(peer, "host", None)
    return host if isinstance(host, str) else None


def owner_of(editor: EditorContext) -> bytes:
    """
    Return what a client must present, in addition to the conversation, to continue a session with editor state.

    The engine's session contains the editor's state at each turn, and no request repeats that of earlier turns. So only
    the same person in the same project can continue the session: the ``user_info`` with its ``dev_id`` must be the
    same, and the editor's state may change. Without a ``dev_id``, the editor's state must be the same in all turns.
    Empty: no editor state was sent.
    """
    if editor == EditorContext():
        return b""
    if person := _person(editor.user_info):
        return b"person" + person
    texts = (editor.editor_content, editor.selected_text, editor.extra_context, editor.user_info)
    return b"editor" + hashlib.blake2b(json.dumps(texts).encode()).digest()


def _person(user_info: str | None) -> bytes | None:
    """Return the person that a ``user_info`` names, in a canonical form; None if it names none."""
    try:
        info: dict[str, object] = json.loads(user_info or "{}")
        # An organisation without a developer has many members.
        developer = info.get("dev_id")
        if isinstance(developer, bool) or not isinstance(developer, int | str):
            return None
        name = str(developer or "").strip()
        return json.dumps(info, sort_keys=True).encode() if name != "0" and not is_placeholder(name) else None
    except (ValueError, RecursionError):
        return None
