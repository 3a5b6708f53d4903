"""An OpenAI-, Anthropic- and Ollama-compatible HTTP gateway to the Brunix Assistance Engine."""

__version__ = "0.1.0"
