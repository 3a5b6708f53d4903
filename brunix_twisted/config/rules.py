"""The rules that settings refer to: which text a setting may have, and how it becomes a value. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs

# Safe without escaping in an HTTP header, a log line, a URL's path and Ollama's model names.
MODEL_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}"


class SettingError(ValueError):
    """A setting has a value that is not allowed. The message is one line: the setting, the value, what is allowed."""

    def __init__(self, source: str, value: str, allowed: str) -> None:
        super().__init__(f"{source} is {value!r}; allowed: {allowed}")


@attrs.frozen
class Rule:
    """The allowed texts of a setting, and the conversion of a text to a value."""

    allowed: str
    """Completes "allowed: …" in errors and in the documentation."""
    read: Callable[[str], Any]
    """Converts a text to a value. Raises ValueError if it is not allowed."""
    shown: Callable[[str], str] = str
    """Returns the text for messages, without what is secret in it."""


def matching(pattern: str, allowed: str) -> Rule:
    """Allow texts that match a regular expression."""
    expression = re.compile(pattern)

    def read(text: str) -> str:
        if not expression.fullmatch(text):
            raise ValueError(text)
        return text

    return Rule(allowed, read)


def secret(min_length: int, allowed: str) -> Rule:
    """Allow printable texts without spaces, which no message shows."""

    def read(text: str) -> str:
        if not re.fullmatch(f"[!-~]{{{min_length},1024}}", text):
            raise ValueError("not a secret")
        return text

    return Rule(allowed, read, lambda text: "***" if text else "")


def whole_number(minimum: int, maximum: int) -> Rule:
    """Allow decimal integers within bounds."""

    def read(text: str) -> int:
        # int() also accepts "1_0", " 7" and the digits of other scripts, which are mistakes in a unit file.
        if not re.fullmatch(r"[0-9]{1,12}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(text)
        return int(text)

    return Rule(f"a whole number from {minimum:,} to {maximum:,}", read)


def seconds(minimum: float, maximum: float) -> Rule:
    """Allow decimal numbers of seconds within bounds."""

    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not minimum <= float(text) <= maximum:
            raise ValueError(text)
        return float(text)

    return Rule(f"a number of seconds from {minimum:g} to {maximum:,.0f}", read)


def on_off() -> Rule:
    """Allow ``on`` and ``off``."""

    def read(text: str) -> bool:
        if text not in {"on", "off"}:
            raise ValueError(text)
        return text == "on"

    return Rule("on or off", read)


def or_auto(rule: Rule) -> Rule:
    """Also allow ``auto``, and read it as None."""
    return Rule(f"{rule.allowed}, or auto", lambda text: None if text == "auto" else rule.read(text))


def optional(rule: Rule) -> Rule:
    """Also allow an empty text, and read it as None."""
    return Rule(rule.allowed, lambda text: rule.read(text) if text else None, rule.shown)


def model_names(text: str) -> tuple[str, ...]:
    """
    Split model names separated by commas; ``*`` is any name.

    :raises ValueError: a name is malformed.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(name == "*" or re.fullmatch(MODEL_NAME, name) for name in names):
        raise ValueError(text)
    return names


def some_of(*names: str) -> Rule:
    """Allow any of these words, separated by commas; also none."""

    def read(text: str) -> frozenset[str]:
        found = frozenset(word.strip() for word in text.split(",") if word.strip())
        if not found <= frozenset(names):
            raise ValueError(text)
        return found

    return Rule(f"any of {', '.join(names)}, separated by commas", read)


def words(text: str) -> tuple[str, ...]:
    """
    Split lower-case words separated by commas.

    :raises ValueError: the text contains no word, or a malformed one.
    """
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if not found or not all(re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", word) for word in found):
        raise ValueError(text)
    return found


def beginnings(minimum: int, maximum: int) -> Rule:
    """Allow the beginnings of texts, separated by semicolons, with lengths within bounds."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(each.strip() for each in text.split(";") if each.strip())
        if not all(minimum <= len(each) <= maximum for each in found):
            raise ValueError(text)
        return found

    return Rule(f"beginnings of messages, each of {minimum} to {maximum} characters, separated by semicolons", read)


def quotes_hint(text: str) -> str:
    """Return an addition to an error for a quoted text: programs such as Docker keep the quotes of an env file."""
    return ", without quotes" if re.fullmatch(r"""'.*'|".*\"""", text.strip(), re.DOTALL) else ""


def unquoted(read: Callable[[str], str]) -> Callable[[str], str]:
    """Reject quoted texts, since no address is quoted."""

    def read_unquoted(text: str) -> str:
        if quotes_hint(text):
            raise ValueError(text)
        return read(text)

    return read_unquoted
