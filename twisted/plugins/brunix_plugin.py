"""Makes ``twistd brunix`` known to Twisted."""

from twisted.application.service import ServiceMaker

brunix = ServiceMaker(
    "brunix",
    "brunix_twisted.tap",
    "Serves the Brunix Assistance Engine to OpenAI's and Ollama's clients.",
    "brunix",
)
