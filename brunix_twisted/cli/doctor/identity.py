"""Who answers: this gateway, something before it, or somebody else; and how the gateway says it is."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

import attrs

from brunix_twisted.cli.address import GatewayAddress
from brunix_twisted.cli.diagnosis import Diagnosis, diagnose_response
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.http_client import FullResponse, Target, get


def page(target: Target, path: str, timeout_s: float) -> FullResponse:
    """Ask for a page. Raises what asking over a network raises."""
    return get(target, path, timeout_s=timeout_s)


@attrs.frozen
class Identity:
    """What the pages say by which servers can be told apart."""

    health: FullResponse
    models: FullResponse
    version: FullResponse
    """Ollama's /api/version."""


def measure_identity(target: Target, timeout_s: float) -> Identity:
    """Ask for these pages. Raises what asking over a network raises."""
    return Identity(*(page(target, path, timeout_s) for path in ("/health", "/v1/models", "/api/version")))


def is_gateway(found: Identity) -> bool:
    """Whether this is a gateway of ours."""
    data = found.health.json()
    if isinstance(data, dict) and data.get("status") in {"ok", "unavailable", "draining"} and "version" in data:
        return True
    return _owner(found.models) == "brunix"


def _owner(models: FullResponse) -> str:
    with suppress(LookupError, TypeError):
        return str(models.json()["data"][0]["owned_by"])
    return ""


def _other(found: Identity) -> str:
    """Name the server that it is instead, as far as that can be told."""
    owner, server = _owner(found.models), found.models.headers.get("Server")
    if owner == "vllm":
        return "vLLM"
    if owner == "llamacpp" or server == "llama.cpp":
        return "llama.cpp's server"
    version = found.version.json()
    if found.version.ok and isinstance(version, dict) and isinstance(version.get("version"), str):
        return f"Ollama {version['version']} itself"
    said = found.health
    what = said.headers.get("Server") or said.headers.get("Content-Type") or "it does not say what it is"
    return f"another server ({what}; /health gives {said.status})"


def check_identity(where: GatewayAddress, found: Identity) -> Finding:
    """Say who answers."""
    refused = _refused(where, found)
    if refused is not None:
        return Finding("gateway", "problem", refused.message, "", refused.remedy, {"kind": refused.kind})
    if not is_gateway(found):
        other = _other(found)
        todo = (
            "Ollama's port is 11434, the gateway's 8000: is the address the one that the gateway prints at its start?"
            if other.startswith("Ollama")
            else "Is the address the one that the gateway prints at its start, or the one of the proxy before it?"
        )
        return Finding(
            "gateway", "problem", f"this is not the gateway, but {other}", "", todo, {"kind": "not_the_gateway"}
        )
    data = found.health.json()
    version = data.get("version") if isinstance(data, dict) else None
    return Finding(
        "gateway", "ok", f"brunix_twisted {version or 'of an unknown release'}", figures={"version": version}
    )


def _refused(where: GatewayAddress, found: Identity) -> Diagnosis | None:
    """Say whether nobody is let through to it at all."""
    if is_gateway(found):
        return None
    for answer in (found.models, found.health):
        diagnosis = diagnose_response(answer, where)
        if not answer.ok and diagnosis.kind in _ACCESS_DENIED:
            return diagnosis
    return None


_ACCESS_DENIED: Final = {"host_not_allowed", "unauthorized", "redirect", "proxy_without_gateway", "https"}


def check_health(where: GatewayAddress, found: Identity) -> Finding:
    """Say how the gateway and its engine are."""
    answer = found.health
    data = answer.json()
    data = data if isinstance(data, dict) else {}
    state = data.get("status")
    if answer.ok and state == "ok":
        processes = data.get("processes")
        if isinstance(processes, dict) and processes.get("running") != processes.get("configured"):
            return Finding(
                "engine",
                "warning",
                f"the engine is well, but only {processes.get('running')} of {processes.get('configured')} gateway "
                "processes run",
                "A process that died is being replaced.",
                "Its log says how it ended.",
                {"processes": processes},
            )
        return Finding("engine", "ok", "the engine is well, says the gateway")
    if state == "draining":
        return Finding(
            "engine",
            "problem",
            "the gateway is stopping, and takes no more questions",
            "It was told to stop, and lets answers under way end.",
            "Start it again, or wait for the one that takes its place.",
        )
    if state == "unavailable":
        return Finding(
            "engine",
            "problem",
            f"the gateway runs, its engine does not answer: {data.get('reason') or 'no reason is given'}",
            "Every question is answered with 503 until the engine is back; the gateway need not be restarted.",
            "Look at the engine and at BRUNIX_GRPC_TARGET. On the gateway's machine `twistd brunix --check` says more.",
        )
    return Finding(
        "engine",
        "warning",
        f"/health gives {answer.status} and does not say how the engine is",
        "Something before the gateway answers in its place, or keeps the path to itself.",
        f"Let {where.root}/health through to the gateway.",
    )


_MARKS: Final = (
    ("Via", r"(.+)", "{0}"),
    ("CF-Ray", r".", "Cloudflare"),
    ("X-Amz-Cf-Id", r".", "CloudFront"),
    ("X-Served-By", r"(.+)", "{0}"),
    ("Server", r"(?!TwistedWeb)(.+)", "{0}"),
)
"""Headers by which something in between shows itself: the name, what it holds, and who that is."""


def between(found: Identity) -> list[str]:
    """Name what shows itself between here and the gateway."""
    seen = []
    for name, pattern, who in _MARKS:
        if match := re.fullmatch(f"(?:{pattern}).*", found.health.headers.get(name), re.DOTALL):
            seen.append(who.format(*match.groups()))
    return list(dict.fromkeys(seen))


def check_intermediaries(found: Identity) -> Finding:
    """Say what is between."""
    if seen := between(found):
        return Finding(
            "between", "note", f"between here and the gateway stands {' and '.join(seen)}", figures={"seen": seen}
        )
    return Finding("between", "ok", "nothing between here and the gateway shows itself", figures={"seen": []})


def listed(models: FullResponse) -> list[str]:
    """Name the models that are listed."""
    with suppress(LookupError, TypeError):
        return [str(each["id"]) for each in models.json()["data"]]
    return []


def check_model(names: list[str], asked: str | None, known: bool) -> Finding:  # noqa: FBT001 - a value
    """
    Say whether the model's name is right.

    :param asked: the name that somebody means to use, if they said.
    :param known: whether the gateway takes that name; where there is none, the listed one with ``:latest``.
    """
    data = " and ".join(names) or "none"
    if asked is None:
        if not names:
            return Finding("model", "problem", "the gateway lists no model", "", "Is /v1/models let through?")
        tagged = f"; with :latest behind it, as Ollama writes it, it is {'taken too' if known else 'not taken'}"
        return Finding("model", "ok", f"the model is called {data}{tagged}", figures={"listed": names})
    if known:
        listed_so = asked.removesuffix(":latest") in names
        says = f"{asked} is taken" if listed_so else f"{asked} is taken, as another name of {data}"
        return Finding("model", "ok", says, figures={"listed": names, "asked": asked})
    near = [name for name in names if name.lower() == asked.removesuffix(":latest").lower()]
    todo = f"Write {near[0]}: upper and lower case count." if near else f"Write {data} in the client."
    return Finding(
        "model",
        "problem",
        f"there is no model {asked}; the one that is listed is {data}",
        "Every question with that name is answered with 404.",
        f"{todo} Or let the gateway take the name too: PROXY_MODEL_ALIASES={asked}.",
        {"listed": names, "asked": asked},
    )
