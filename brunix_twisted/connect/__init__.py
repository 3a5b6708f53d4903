"""
How each client is told where the gateway is: its configuration, as data for the page, the command line and the docs.

The texts are in ``clients.toml`` beside this module. They hold three placeholders, and nothing else of them changes:

===========  =========================================================================================
``@URL@``    the gateway's root, without a slash at its end: ``http://127.0.0.1:8000``
``@HOST@``   the part of it that names the host, with its port where it has one: ``127.0.0.1:8000``
``@MODEL@``  the model's name
===========  =========================================================================================

What makes replacing safe is not escaping, which differs from language to language, but a rule for what is put in: an
address and a name of characters that mean themselves in every one of these languages, inside double quotes as outside.
The gateway's settings hold its model's names to the same rule. Anything else is refused. The texts do their part: a
model's name stands inside quotes wherever a bare ``null`` or ``7`` would not be text, and so does an address wherever a
shell would take the brackets around ``[::1]`` for a pattern.
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


class UnknownClient(LookupError):  # noqa: N818 - the name its users know it by
    """There is no client with this id; the text says so, and which are near."""


class UnfitValueError(ValueError):
    """An address or a model's name that cannot be put into a configuration; the text says why."""


@attrs.frozen
class Snippet:
    """One text to be copied."""

    language: str
    """As a Markdown fence names it: ``python``, ``js``, ``json``, ``yaml``, ``toml``, ``sh``, ``text`` …"""
    code: str
    """Ends with a line break."""
    file: str = ""
    """Where it belongs, such as ``~/.continue/config.yaml``."""
    note: str = ""
    """A plain sentence to be read before it, in Markdown without links."""


@attrs.frozen
class Client:
    """A program that can ask the gateway."""

    id: str
    """In lower case, with dashes."""
    name: str
    api: str
    """Which of the gateway's APIs it speaks: ``openai``, ``ollama``, ``responses``, ``anthropic``."""
    group: str
    snippets: tuple[Snippet, ...]
    note: str = ""
    """What else is to be known, in Markdown without links."""
    tested: str = ""
    """The releases that the tests run. Empty: it was not tried."""


@cache
def clients() -> tuple[Client, ...]:
    """Every client, in the order to show; those of a group stand together."""
    data = tomllib.loads((files(__name__) / "clients.toml").read_text("utf-8"))
    return tuple(
        Client(**{**each, "snippets": tuple(Snippet(**snippet) for snippet in each["snippets"])})
        for each in data["clients"]
    )


def client(id: str) -> Client:  # noqa: A002 - the attribute's name
    """
    The client with this id.

    :raises UnknownClient: there is none.
    """
    known = {each.id: each for each in clients()}
    try:
        return known[id]
    except KeyError:
        wanted = id.strip().lower().replace(" ", "-").replace("_", "-")
        near = [each for each in known if wanted and (wanted in each or each in wanted)]
        near += [each for each in get_close_matches(wanted, known, n=3) if each not in near]
        told = f"; near it are: {', '.join(near)}" if near else ""
        raise UnknownClient(f"no client is called {id!r}{told}") from None


def filled(client: Client, url: str, model: str) -> Client:
    """
    The client, told of this gateway.

    :param url: the gateway's root, such as ``http://127.0.0.1:8000`` or ``https://example.com/brunix``.
    :raises UnfitValueError: the address or the name could mean something else where it is put in.
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
    """Every client with its placeholders, as compact JSON: ``{"clients": […]}``."""
    told = {"clients": [attrs.asdict(each) for each in clients()]}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _values(url: str, model: str) -> Mapping[str, str]:
    if not _URL.fullmatch(url):
        raise UnfitValueError(
            f"{url!r} cannot be put into a configuration: an address is http:// or https://, a host, and maybe a port "
            "and a path of letters, digits and . _ ~ % -, without a slash at its end"
        )
    if not _MODEL.fullmatch(model):
        raise UnfitValueError(
            f"{model!r} cannot be put into a configuration: a model's name is 1 to 128 letters, digits and "
            ". _ : / @ + -, a letter or a digit first"
        )
    return {"URL": url, "HOST": urlsplit(url).netloc, "MODEL": model}


def _replaced(text: str, values: Mapping[str, Any]) -> str:
    # In one go, so that what was put in is not searched again.
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)
