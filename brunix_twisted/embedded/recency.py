"""Versions and dates in texts, comparable, so that "the newest" can be found."""

import re
from typing import Final

_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "jan january enero",
            "feb february febrero",
            "mar march marzo",
            "apr april abril",
            "may mayo",
            "jun june junio",
            "jul july julio",
            "aug august agosto",
            "sep sept september septiembre",
            "oct october octubre",
            "nov november noviembre",
            "dec december diciembre",
        ),
        start=1,
    )
    for name in names.split()
}
_MONTH: Final = "|".join(sorted(_MONTHS, key=len, reverse=True))
_ISO_DATE: Final = re.compile(r"\b((?:19|20)\d\d)[-/.](0?[1-9]|1[0-2])[-/.](0?[1-9]|[12]\d|3[01])\b")
_DAY_FIRST: Final = re.compile(
    rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\.?\s+(?:of\s+)?({_MONTH})\.?,?\s+((?:19|20)\d\d)\b", re.IGNORECASE
)
_MONTH_FIRST: Final = re.compile(
    rf"\b({_MONTH})\.?(?:\s+(\d{{1,2}})(?:st|nd|rd|th)?)?,?\s+((?:19|20)\d\d)\b", re.IGNORECASE
)
_VERSION: Final = re.compile(r"(?<![\w.])v?(\d{1,4}(?:\.\d{1,4}){1,3})(?![\w.]*\.\d)", re.IGNORECASE)

Key = tuple[int, ...]


def date_in(text: str) -> Key:
    """Return the first date in a text as year, month and day; empty without one."""
    if found := _ISO_DATE.search(text):
        return int(found[1]), int(found[2]), int(found[3])
    if found := _DAY_FIRST.search(text):
        return int(found[3]), _MONTHS[found[2].lower()], int(found[1])
    if found := _MONTH_FIRST.search(text):
        return int(found[3]), _MONTHS[found[1].lower()], int(found[2] or 0)
    return ()


def version_in(text: str) -> Key:
    """Return the first version in a text, such as (2, 10, 1); empty without one. A date is no version."""
    found = _VERSION.search(_ISO_DATE.sub(" ", text))
    return tuple(map(int, found[1].split("."))) if found else ()
