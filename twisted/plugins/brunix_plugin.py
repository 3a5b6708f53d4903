"""Makes ``twistd brunix`` known to Twisted."""

from twisted.application.service import ServiceMaker

from brunix_twisted.runtime.imports import without_collecting


class _Maker(ServiceMaker):
    @property
    def options(self) -> object:
        """What twistd asks for first, which imports the gateway."""
        with without_collecting():
            return super().options


brunix = _Maker(
    "brunix",
    "brunix_twisted.tap",
    "Serves the Brunix Assistance Engine to OpenAI's and Ollama's clients.",
    "brunix",
)
