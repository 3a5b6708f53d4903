"""An embedded engine that serves in this process."""

import attrs
import grpc

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.server import EngineServer


@attrs.frozen
class Served:
    """A running engine, with a channel, a stub and its session history."""

    server: EngineServer
    channel: grpc.Channel
    stub: brunix_pb2_grpc.AssistanceEngineStub
    sessions: SessionHistory

    def ask(self, query: str, session_id: str = "") -> str:
        """Call AskAgent and return the answer."""
        request = brunix_pb2.AgentRequest(query=query, session_id=session_id)
        return "".join(message.text for message in self.stub.AskAgent(request, timeout=20))

    def evaluate(self, request: brunix_pb2.EvalRequest | None = None) -> brunix_pb2.EvalResponse:
        """Call EvaluateRAG."""
        response: brunix_pb2.EvalResponse = self.stub.EvaluateRAG(request or brunix_pb2.EvalRequest(), timeout=20)
        return response
