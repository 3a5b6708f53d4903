"""The generated code, and the contract it is generated from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from brunix_twisted._pb import brunix_pb2
from paths import ROOT

GENERATED = ROOT / "brunix_twisted" / "_pb"


def test_generated_code_is_current(tmp_path: Path) -> None:
    """The gateway would speak another contract than the one in protos/."""
    plugin = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
    subprocess.run(  # noqa: S603 - the same command as in the Makefile
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--proto_path=brunix_twisted/_pb={ROOT / 'protos'}",
            f"--plugin={plugin}",
            *(f"--{out}_out={tmp_path}" for out in ("python", "pyi", "grpc_python", "mypy_grpc")),
            "brunix_twisted/_pb/brunix.proto",
        ],
        check=True,
        capture_output=True,
    )
    fresh = {path.name: path.read_text("utf-8") for path in (tmp_path / "brunix_twisted" / "_pb").iterdir()}
    kept = {path.name: path.read_text("utf-8") for path in GENERATED.glob("brunix_pb2*.py*")}
    assert kept == fresh, "brunix_twisted/_pb is out of date; run: make protos"


def test_the_engines_contract() -> None:
    """The engine would not understand the gateway: these numbers are the engine's, and not ours to change."""
    service = brunix_pb2.DESCRIPTOR.services_by_name["AssistanceEngine"]
    assert service.full_name == "brunix.AssistanceEngine"
    assert {
        method.name: (method.input_type.name, method.output_type.name, method.client_streaming, method.server_streaming)
        for method in service.methods
    } == {
        "AskAgent": ("AgentRequest", "AgentResponse", False, True),
        "AskAgentStream": ("AgentRequest", "AgentResponse", False, True),
        "EvaluateRAG": ("EvalRequest", "EvalResponse", False, False),
    }
    request, response = brunix_pb2.AgentRequest.DESCRIPTOR, brunix_pb2.AgentResponse.DESCRIPTOR
    assert {field.name: field.number for field in request.fields} == {
        "query": 1,
        "session_id": 2,
        "editor_content": 3,
        "selected_text": 4,
        "extra_context": 5,
        "user_info": 6,
    }
    assert {field.name: field.number for field in response.fields} == {"text": 1, "avap_code": 2, "is_final": 3}
