"""Environment variables that look like a setting but are not, mostly misspelt names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from brunix_twisted.config.settings import table

ELSEWHERE: Final = frozenset(
    {
        # brunix run
        "BRUNIX_ENGINE_COMMAND",
        "BRUNIX_GATEWAY_COMMAND",
        "BRUNIX_DRAIN_GRACE_S",
        "BRUNIX_KILL_GRACE_S",
        # the embedded engine
        "BRUNIX_ENGINE_LISTEN",
        "BRUNIX_ENGINE_TOKENS_PER_SECOND",
        "BRUNIX_DOCS",
        "BRUNIX_DOCS_URL",
        "BRUNIX_GOLDEN",
        "BRUNIX_LLM_URL",
        "BRUNIX_LLM_MODEL",
        "BRUNIX_LLM_KEY",
        "BRUNIX_LLM_TIMEOUT_S",
        # the command line
        "BRUNIX_URL",
        "BRUNIX_API_KEY",
    }
)
"""Variables that other programs of this project read."""
# Kubernetes sets these for a service, for example one named brunix or proxy.
_KUBERNETES: Final = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def known() -> frozenset[str]:
    """Return the names of all known variables."""
    return ELSEWHERE | {row.variable for _, row in table()}


def unknown(environment: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that looks like a setting but is not, with the most similar name."""
    names = known()
    return [
        _sentence(name, names)
        for name in sorted(environment)
        if name.upper().startswith(("PROXY_", "BRUNIX_"))
        and name not in names
        # Other programs use names in lower case, such as proxy_host.
        and (name.isupper() or name.upper() in names)
        and not _is_kubernetes(name, environment[name])
    ]


def _is_kubernetes(name: str, text: str) -> bool:
    if _KUBERNETES.fullmatch(name):
        return True
    return name.endswith("_PORT") and re.match("(tcp|udp|sctp)://", text) is not None


def _sentence(name: str, names: Iterable[str]) -> str:
    nearest = get_close_matches(name.upper(), sorted(names), n=1, cutoff=0.7)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    return f"The environment variable {name} is not a setting and has no effect{hint}"
