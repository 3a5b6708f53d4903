"""Who sends a request: what the gateway can tell callers apart by. It verifies none of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence

from twisted.internet.interfaces import IAddress
from twisted.web.iweb import IRequest

from brunix_twisted.api.session_ids import is_placeholder
from brunix_twisted.config.trusted_proxies import TrustedProxies, without_loopback
from brunix_twisted.model import EditorContext

_CREDENTIALS = (b"authorization", b"x-api-key")

_MAX_LOGGED_CHARACTERS = 256


def caller_of(request: IRequest, proxies: TrustedProxies) -> Sequence[bytes]:
    """
    Return what distinguishes the caller of a request from others: its credentials, its user and its address.

    The user and the address are those that a trusted proxy names; without one, there is no user, and the address is
    the peer's. All loopback addresses are one, because a client on this machine may use any of them.
    """
    address, users = _address_and_users(request, proxies)
    credentials = (b"\n".join(request.requestHeaders.getRawHeaders(name, ())) for name in _CREDENTIALS)
    return (*credentials, b"\n".join(users), without_loopback(address).encode("latin-1"))


def client_fields(request: IRequest, proxies: TrustedProxies, wanted: Container[str]) -> dict[str, str]:
    """
    Return what the log says about the client of a request.

    :param wanted: ``address``, the client's; ``user``, whom a trusted proxy names; ``agent``, the ``User-Agent``.
    """
    address, users = _address_and_users(request, proxies)
    agents = request.requestHeaders.getRawHeaders(b"user-agent", ())
    fields = {
        "client": (address,) if "address" in wanted else (),
        "user": users if "user" in wanted else (),
        "user_agent": agents if "agent" in wanted else (),
    }
    texts = {name: ", ".join(map(_text, values))[:_MAX_LOGGED_CHARACTERS] for name, values in fields.items()}
    return {name: text for name, text in texts.items() if text}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _address_and_users(request: IRequest, proxies: TrustedProxies) -> tuple[str, Sequence[bytes]]:
    """Return the client's address and users, as a trusted proxy names them."""
    headers = request.requestHeaders
    host = _host(request.getClientAddress())
    forwarded: Sequence[bytes] = ()
    users: Sequence[bytes] = ()
    if proxies and proxies.trusts(host):
        forwarded = headers.getRawHeaders(b"x-forwarded-for", ())
        users = headers.getRawHeaders(b"x-forwarded-user", ())
    return proxies.client_of(host, (value.decode("latin-1") for value in forwarded)), users


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
