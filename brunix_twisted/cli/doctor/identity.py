"""Which server responds, whether it is a healthy gateway, and which model it has."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import attrs

from brunix_twisted.cli.address import GatewayAddress
from brunix_twisted.cli.diagnosis import Diagnosis, diagnose_response
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.http_client import FullResponse, Target, get
from brunix_twisted.connect.engine_port import advice


@attrs.frozen
class Identity:
    """The responses that distinguish servers."""

    health: FullResponse
    models: FullResponse
    version: FullResponse
    """Ollama's /api/version."""


def measure_identity(target: Target, timeout_s: float) -> Identity:
    """Request the three pages. Raises network errors."""
    return Identity(*(get(target, path, timeout_s=timeout_s) for path in ("/health", "/v1/models", "/api/version")))


def _health(found: Identity) -> dict[str, Any]:
    data = found.health.json()
    return data if isinstance(data, dict) else {}


def process_count(found: Identity) -> int:
    """Return the number of gateway processes that the server reports."""
    try:
        return max(1, int(_health(found)["processes"]["configured"]))
    except (LookupError, TypeError, ValueError):
        return 1


def is_gateway(found: Identity) -> bool:
    """Whether the server is a Brunix gateway."""
    health = _health(found)
    if health.get("status") in {"ok", "unavailable", "draining"} and "version" in health:
        return True
    return _owner(found.models) == "brunix"


def _owner(models: FullResponse) -> str:
    with suppress(LookupError, TypeError):
        return str(models.json()["data"][0]["owned_by"])
    return ""


def _other_server(found: Identity) -> str:
    """Name another server as precisely as possible."""
    owner, server = _owner(found.models), found.models.headers.get("Server")
    if owner == "vllm":
        return "vLLM"
    if owner == "llamacpp" or server == "llama.cpp":
        return "llama.cpp's server"
    version = found.version.json()
    if found.version.ok and isinstance(version, dict) and isinstance(version.get("version"), str):
        return f"Ollama {version['version']}"
    headers = found.health.headers
    name = headers.get("Server") or headers.get("Content-Type") or "unknown"
    return f"another server ({name}; /health returns {found.health.status})"


def check_identity(where: GatewayAddress, found: Identity) -> Finding:
    """Check whether the server is a gateway."""
    denied = _access_denied(where, found)
    if denied is not None:
        return Finding("gateway", "problem", denied.message, "", denied.remedy, {"kind": denied.kind})
    if not is_gateway(found):
        other = _other_server(found)
        todo = "Use the address that the gateway prints when it starts, or the address of its proxy."
        if other.startswith("Ollama"):
            todo = f"Ollama's port is 11434, the gateway's is 8000. {todo}"
        figures = {"kind": "not_the_gateway"}
        return Finding("gateway", "problem", f"this is not the gateway, but {other}", "", todo, figures)
    version = _health(found).get("version")
    return Finding("gateway", "ok", f"brunix_twisted {version or '(unknown release)'}", figures={"version": version})


_ACCESS_DENIED: Final = {"host_not_allowed", "unauthorized", "redirect", "proxy_without_gateway", "https"}


def _access_denied(where: GatewayAddress, found: Identity) -> Diagnosis | None:
    """Return why requests do not reach the gateway, if they do not."""
    if is_gateway(found):
        return None
    for response in (found.models, found.health):
        diagnosis = diagnose_response(response, where)
        if not response.ok and diagnosis.kind in _ACCESS_DENIED:
            return diagnosis
    return None


def check_health(where: GatewayAddress, found: Identity, find_published: Callable[[], str | None]) -> Finding:
    """
    Check whether the gateway reports a healthy engine.

    :param find_published: returns the target at which an engine can be reached that the gateway cannot reach, if any;
        see :func:`brunix_twisted.cli.doctor.engine_port.measure_published`.
    """
    health = _health(found)
    state = health.get("status")
    if found.health.ok and state == "ok":
        processes = health.get("processes")
        if isinstance(processes, dict) and processes.get("running") != processes.get("configured"):
            return Finding(
                "engine",
                "warning",
                f"the engine is healthy, but only {processes.get('running')} of {processes.get('configured')} gateway "
                "processes run",
                "The gateway is replacing a process that died.",
                "Its log shows why the process ended.",
                {"processes": processes},
            )
        if health.get("state") == "unavailable":
            return Finding(
                "engine",
                "warning",
                "the engine is healthy, but the gateway cannot store conversations",
                "Its state is unavailable. It answers, but conversations may begin a new session.",
                "Run twistd brunix --check with the gateway's settings, or read the gateway's log.",
                {"state": health["state"]},
            )
        return Finding("engine", "ok", "the gateway reports a healthy engine")
    if state == "draining":
        return Finding(
            "engine",
            "problem",
            "the gateway is stopping and accepts no new questions",
            "It is only finishing its current answers.",
            "Start it again, or wait for its replacement.",
        )
    if state == "unavailable":
        todo = "Check the engine and BRUNIX_GRPC_TARGET. `twistd brunix --check` on the gateway's machine shows more."
        published = find_published()
        return Finding(
            "engine",
            "problem",
            f"the gateway runs, but its engine is unreachable: {health.get('reason') or 'no reason given'}",
            "Every question fails with 503 until the engine is back. The gateway needs no restart.",
            todo if published is None else f"{advice(published)}.",
            {} if published is None else {"published": published},
        )
    return Finding(
        "engine",
        "warning",
        f"/health returns {found.health.status} and no engine status",
        "A proxy responds in place of the gateway, or blocks this path.",
        f"Let {where.root}/health through to the gateway.",
    )


_PROXY_HEADERS: Final = (
    ("Via", r"(.+)", "{0}"),
    ("CF-Ray", r".", "Cloudflare"),
    ("X-Amz-Cf-Id", r".", "CloudFront"),
    ("X-Served-By", r"(.+)", "{0}"),
    ("Server", r"(?!TwistedWeb)(.+)", "{0}"),
)
"""Headers that reveal a proxy: name, pattern of the value, and the proxy's name."""


def intermediaries(found: Identity) -> list[str]:
    """Name the proxies that headers reveal."""
    names = []
    for name, pattern, proxy in _PROXY_HEADERS:
        if match := re.fullmatch(f"(?:{pattern}).*", found.health.headers.get(name), re.DOTALL):
            names.append(proxy.format(*match.groups()))
    return list(dict.fromkeys(names))


def check_intermediaries(found: Identity) -> Finding:
    """Report the proxies that headers reveal."""
    if seen := intermediaries(found):
        says = f"between this machine and the gateway: {' and '.join(seen)}"
        return Finding("between", "note", says, figures={"seen": seen})
    return Finding("between", "ok", "no proxy between this machine and the gateway is visible", figures={"seen": []})


def listed(models: FullResponse) -> list[str]:
    """Return the names of the listed models."""
    with suppress(LookupError, TypeError):
        return [str(each["id"]) for each in models.json()["data"]]
    return []


def check_model(names: list[str], requested: str | None, *, known: bool) -> Finding:
    """
    Check the model's name.

    :param requested: the name that the user wants to use; None if they gave none.
    :param known: whether the gateway accepts that name, or else the listed one with ``:latest`` appended.
    """
    available = " and ".join(names) or "none"
    if requested is None:
        if not names:
            todo = "Check that the proxy lets /v1/models through."
            return Finding("model", "problem", "the gateway lists no model", "", todo)
        tagged = f"; {names[0]}:latest, as Ollama clients write it, is {'accepted too' if known else 'not accepted'}"
        return Finding("model", "ok", f"the model's name is {available}{tagged}", figures={"listed": names})
    figures = {"listed": names, "asked": requested}
    if known:
        # The gateway lists its aliases too, after the model.
        model = names[0] if names else "none"
        alias = "" if requested.removesuffix(":latest") == model else f" as another name of {model}"
        return Finding("model", "ok", f"{requested} is accepted{alias}", figures=figures)
    similar = [name for name in names if name.lower() == requested.removesuffix(":latest").lower()]
    todo = f"Use {similar[0]}; names are case-sensitive." if similar else f"Use {available} in the client."
    return Finding(
        "model",
        "problem",
        f"the model {requested} does not exist; the gateway lists {available}",
        "Every question with that name fails with 404.",
        f"{todo} Or let the gateway accept the name: PROXY_MODEL_ALIASES={requested}.",
        figures,
    )
