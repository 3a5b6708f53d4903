"""Recognize greetings, thanks and questions about the engine itself."""

import re
from typing import Final

from brunix_twisted.embedded.tokenizer import words


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_THANKS: Final = _words("thanks thank thx cheers gracias danke merci")
_GREETINGS: Final = _words("""
    hi hello hey hiya howdy yo hola hallo bonjour ciao greetings welcome morning afternoon evening buenos buenas
    bye goodbye adios ok okay cool great nice perfect awesome excellent super wonderful lol test testing ping
""")
# Words that small talk may contain next to one of those above.
_FILLERS: Final = _words("""
    a again all alright am and any are be bot day days dear dias doing everyone folks for friend good got great guys
    have helped helpful helps how i is it its just later lot me much muchas muy noches now of one see so team tardes
    that the then there this to today very was well what works worked you your up
""")
_ABOUT: Final = frozenset(
    """
    help|help me|help me please|please help|can you help|can you help me|i need help|who are you|what are you
    |what are you for|what is this|what can you do|what can you do for me|what can i ask|what can i ask you
    |what can you answer|what do you do|what do you know|what questions can i ask|what can you help with
    |what can you help me with|how do you work|how does this work|are you there|are you a bot|are you an ai
    |are you human|are you a human|is anyone there|anyone there|introduce yourself|how are you|how are you doing
    |how is it going|whats up|what s up|tell me about yourself|quien eres|que eres|que puedes hacer|que sabes
    |que sabes hacer|ayuda|ayudame|me puedes ayudar|puedes ayudarme|como estas|que tal
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
# How to answer, which changes nothing in what is asked; `brunix doctor` asks so.
_MANNER: Final = re.compile(
    r"\b(?:please )?(?:answer|reply|respond) (?:briefly|in [a-z0-9 ]{1,40})\W*\Z", re.IGNORECASE
)
_MAX_WORDS: Final = 10
_MAX_CHARACTERS: Final = 200


def is_small_talk(text: str) -> bool:
    """Return whether a message is only a greeting, thanks or a question about the engine."""
    if len(text) > _MAX_CHARACTERS:
        return False
    said = words(_MANNER.sub("", text))
    if not said or len(said) > _MAX_WORDS:
        return False
    rest = " ".join(word for word in said if word not in _GREETINGS or word in _FILLERS)
    if " ".join(said) in _ABOUT or (rest != " ".join(said) and rest in _ABOUT):
        return True
    # "Good morning" and "great, that helped", but not "is it good?".
    triggers = _THANKS | _GREETINGS
    return not triggers.isdisjoint(said) and all(word in triggers or word in _FILLERS for word in said)


def is_thanks(text: str) -> bool:
    """Return whether a message of small talk thanks."""
    return not _THANKS.isdisjoint(words(text))
