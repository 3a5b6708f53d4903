"""``brunix connect``: how a client is told where the gateway is."""

from __future__ import annotations

import json
import re
from argparse import Namespace

import attrs

from brunix_twisted import connect as data
from brunix_twisted.cli.chat_client import DEFAULT_MODEL, listed_model
from brunix_twisted.cli.diagnosis import DiagnosisError
from brunix_twisted.cli.http_client import Target
from brunix_twisted.cli.terminal import print_err, print_out
from brunix_twisted.connect import Client, Snippet

_LOOK_S = 2.0
"""A text can be made without the gateway too: nobody waits long for it."""


def connect(options: Namespace, target: Target) -> int:
    """Run the command."""
    try:
        if options.client is None and not options.all:
            return _list(as_json=options.json)
        chosen = data.clients() if options.client is None else (data.client(options.client),)
        model = options.model or _model(target)
        filled = [data.filled(each, target.address.root, model) for each in chosen]
    except data.UnknownClient as error:
        print_err(f"brunix connect: {error}")
        print_err("  `brunix connect` lists all of them.")
        return 2
    except data.UnfitValueError as error:
        print_err(f"brunix connect: {error}")
        return 2
    if options.json:
        print_out(json.dumps({"clients": [attrs.asdict(each) for each in filled]}, ensure_ascii=False, indent=2) + "\n")
    elif options.client is None:
        for each in filled:
            _print_all(each)
    else:
        return _print(filled[0], options.part)
    return 0


def _model(target: Target) -> str:
    """Ask the gateway for the model's name; a text without it would have to be changed by hand."""
    try:
        if name := listed_model(target, _LOOK_S):
            return name
        why = "it lists no model"
    except DiagnosisError as error:
        why = error.diagnosis.message
    print_err(f"The model is called {DEFAULT_MODEL} below, for {target.address} could not be asked: {why}.")
    return DEFAULT_MODEL


def _list(*, as_json: bool) -> int:
    every = data.clients()
    if as_json:
        told_of = [{"id": each.id, "name": each.name, "api": each.api, "group": each.group} for each in every]
        print_out(json.dumps({"clients": told_of}, ensure_ascii=False, indent=2) + "\n")
        return 0
    width = max(len(each.id) for each in every)
    group = ""
    lines: list[str] = []
    for each in every:
        if each.group != group:
            group = each.group
            lines += ["", group] if lines else [group]
        lines.append(f"  {each.id:{width}}  {each.name}")
    print_out("\n".join(lines) + "\n")
    print_err("\n`brunix connect NAME` prints the configuration of one.")
    return 0


def _print(client: Client, part: int) -> int:
    """Print one text to the standard output, so that it can go into a file, and what is to be known beside it."""
    if not 1 <= part <= len(client.snippets):
        print_err(f"brunix connect: {client.id} has {_parts(len(client.snippets))}; there is no part {part}")
        return 2
    snippet = client.snippets[part - 1]
    print_err(f"# {client.name}{_tried(client)}")
    for text in (client.note, snippet.note):
        if text:
            print_err(f"# {_plain(text)}")
    if snippet.file:
        print_err(f"# It belongs into {snippet.file}:")
    print_out(snippet.code if snippet.code.endswith("\n") else snippet.code + "\n")
    for number, other in enumerate(client.snippets, 1):
        if number != part:
            print_err(f"# Part {number}, {_what(other)}: brunix connect {client.id} --part {number}")
    return 0


def _print_all(client: Client) -> None:
    print_out(f"# {client.name}{_tried(client)}\n")
    for snippet in client.snippets:
        print_out(f"\n# {_what(snippet)}\n{snippet.code.rstrip()}\n")
    print_out("\n\n")


def _what(snippet: Snippet) -> str:
    return snippet.file or snippet.language


def _tried(client: Client) -> str:
    return f", tried with {client.tested}" if client.tested else ""


def _parts(count: int) -> str:
    return "1 part" if count == 1 else f"{count} parts"


def _plain(text: str) -> str:
    """Write Markdown as one line for a terminal."""
    return " ".join(re.sub(r"`([^`]*)`", r"\1", text).split())
