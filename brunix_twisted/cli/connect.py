"""``brunix connect``: print the configuration of a client."""

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

_MODELS_TIMEOUT_S = 2.0
"""Short, because the configuration can also be printed without the gateway."""


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
        print_err("  `brunix connect` lists all clients.")
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
    """Ask the gateway for its model, or warn and return the default."""
    try:
        if name := listed_model(target, _MODELS_TIMEOUT_S):
            return name
        reason = "it lists no model"
    except DiagnosisError as error:
        reason = error.diagnosis.message
    print_err(f"Using the default model {DEFAULT_MODEL}. Could not ask {target.address} for its model: {reason}.")
    return DEFAULT_MODEL


def _list(*, as_json: bool) -> int:
    every = data.clients()
    if as_json:
        summaries = [{"id": each.id, "name": each.name, "api": each.api, "group": each.group} for each in every]
        print_out(json.dumps({"clients": summaries}, ensure_ascii=False, indent=2) + "\n")
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
    """Print one part to standard output, for redirection into a file, and notes to standard error."""
    if not 1 <= part <= len(client.snippets):
        print_err(f"brunix connect: {client.id} has only {_parts(len(client.snippets))}, not part {part}")
        return 2
    snippet = client.snippets[part - 1]
    print_err(f"# {client.name}{_tested(client)}")
    for text in (client.note, snippet.note):
        if text:
            print_err(f"# {_plain(text)}")
    if snippet.file:
        print_err(f"# Save it as {snippet.file}:")
    print_out(snippet.code if snippet.code.endswith("\n") else snippet.code + "\n")
    for number, other in enumerate(client.snippets, 1):
        if number != part:
            print_err(f"# Part {number}, {_what(other)}: brunix connect {client.id} --part {number}")
    return 0


def _print_all(client: Client) -> None:
    print_out(f"# {client.name}{_tested(client)}\n")
    for snippet in client.snippets:
        print_out(f"\n# {_what(snippet)}\n{snippet.code.rstrip()}\n")
    print_out("\n\n")


def _what(snippet: Snippet) -> str:
    return snippet.file or snippet.language


def _tested(client: Client) -> str:
    return f", tested with {client.tested}" if client.tested else ""


def _parts(count: int) -> str:
    return "1 part" if count == 1 else f"{count} parts"


def _plain(text: str) -> str:
    """Turn Markdown into one line of plain text."""
    return " ".join(re.sub(r"`([^`]*)`", r"\1", text).split())
