"""An embedded engine that serves in this process."""

import attrs
import grpc

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded.history import Sessions
from brunix_twisted.embedded.server import EngineServer


@attrs.frozen
class Served:
    """A served engine, a channel and a stub on it, and the sessions behind it."""

    server: EngineServer
    channel: grpc.Channel
    stub: brunix_pb2_grpc.AssistanceEngineStub
    sessions: Sessions

    def ask(self, query: str, session_id: str = "") -> str:
        """Ask for a whole answer."""
        request = brunix_pb2.AgentRequest(query=query, session_id=session_id)
        return "".join(message.text for message in self.stub.AskAgent(request, timeout=20))

    def evaluate(self, request: brunix_pb2.EvalRequest | None = None) -> brunix_pb2.EvalResponse:
        """Ask for an evaluation, of everything unless told otherwise."""
        response: brunix_pb2.EvalResponse = self.stub.EvaluateRAG(request or brunix_pb2.EvalRequest(), timeout=20)
        return response
