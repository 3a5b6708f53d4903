"""
Configurations of clients, as data for the page, the command line and the documentation.

The texts are in ``clients.toml``. They contain three placeholders:

===========  =========================================================================================
``@URL@``    the gateway's base URL, without a trailing slash: ``http://127.0.0.1:8000``
``@HOST@``   the URL's host, with its port if it has one: ``127.0.0.1:8000``
``@MODEL@``  the model's name
===========  =========================================================================================

Each language has its own escaping, so the values are restricted instead: only characters that need no escaping in any
of these languages, inside and outside of double quotes, are allowed. The gateway's settings restrict the model's names
in the same way. The texts quote a model's name where a bare ``null`` or ``7`` would not be text. They quote an address
where a shell would treat the brackets of ``[::1]`` as a pattern.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import attrs

_URL = re.compile(r"https?://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9_.~%-]+)*")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
_PLACEHOLDER = re.compile("@(URL|HOST|MODEL)@")


class UnknownClient(LookupError):  # noqa: N818 - part of the interface
    """There is no client with this id. The message lists similar ids."""


class UnfitValueError(ValueError):
    """An address or a model's name that is not allowed in a configuration. The message says why."""


@attrs.frozen
class Snippet:
    """One text to copy."""

    language: str
    """The language of a Markdown code block: ``python``, ``js``, ``json``, ``yaml``, ``toml``, ``sh``, ``text`` …"""
    code: str
    """The text; it ends with a line break."""
    file: str = ""
    """The file to put it into, such as ``~/.continue/config.yaml``."""
    note: str = ""
    """A sentence to show before it, in Markdown without links."""


@attrs.frozen
class Client:
    """A client that can use the gateway."""

    id: str
    """In lower case, with dashes."""
    name: str
    api: str
    """The API that it uses: ``openai``, ``ollama``, ``responses``, ``anthropic``."""
    group: str
    snippets: tuple[Snippet, ...]
    note: str = ""
    """More to know about it, in Markdown without links."""
    tested: str = ""
    """The releases that the tests run. Empty: not tested."""


@cache
def clients() -> tuple[Client, ...]:
    """Return all clients, in the order to show them, grouped."""
    data = tomllib.loads((files(__name__) / "clients.toml").read_text("utf-8"))
    return tuple(
        Client(**{**each, "snippets": tuple(Snippet(**snippet) for snippet in each["snippets"])})
        for each in data["clients"]
    )


def client(id: str) -> Client:  # noqa: A002 - the attribute's name
    """
    Return the client with this id.

    :raises UnknownClient: no client has this id.
    """
    known = {each.id: each for each in clients()}
    try:
        return known[id]
    except KeyError:
        wanted = id.strip().lower().replace(" ", "-").replace("_", "-")
        similar = [each for each in known if wanted and (wanted in each or each in wanted)]
        similar += [each for each in get_close_matches(wanted, known, n=3) if each not in similar]
        hint = f"; did you mean one of: {', '.join(similar)}" if similar else ""
        raise UnknownClient(f"unknown client {id!r}{hint}") from None


def filled(client: Client, url: str, model: str) -> Client:
    """
    Return the client with its placeholders replaced.

    :param url: the gateway's base URL, such as ``http://127.0.0.1:8000`` or ``https://example.com/brunix``.
    :raises UnfitValueError: the address or the name contains characters that are not allowed.
    """
    values = _values(url, model)
    return attrs.evolve(
        client,
        note=_replaced(client.note, values),
        snippets=tuple(
            attrs.evolve(
                snippet,
                code=_replaced(snippet.code, values),
                file=_replaced(snippet.file, values),
                note=_replaced(snippet.note, values),
            )
            for snippet in client.snippets
        ),
    )


@cache
def clients_json() -> bytes:
    """Return all clients with their placeholders, as compact JSON: ``{"clients": […]}``."""
    data = {"clients": [attrs.asdict(each) for each in clients()]}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _values(url: str, model: str) -> Mapping[str, str]:
    if not _URL.fullmatch(url):
        raise UnfitValueError(
            f"{url!r} cannot be used in a configuration. Use http:// or https:// and a host, optionally with a port "
            "and a path of letters, digits and . _ ~ % -, without a trailing slash"
        )
    if not _MODEL.fullmatch(model):
        raise UnfitValueError(
            f"{model!r} cannot be used in a configuration. Use 1 to 128 letters, digits and . _ : / @ + -, "
            "beginning with a letter or a digit"
        )
    return {"URL": url, "HOST": urlsplit(url).netloc, "MODEL": model}


def _replaced(text: str, values: Mapping[str, Any]) -> str:
    # In one pass, so that the values are not searched for placeholders.
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)
