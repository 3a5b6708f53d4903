"""The manifests in deploy/kubernetes, without a cluster."""

from __future__ import annotations

import copy
import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no marker of its types
import pytest
import pytest_twisted
import yaml

from brunix_twisted import __version__
from brunix_twisted.api import health
from brunix_twisted.app import health_check
from brunix_twisted.app.service import _FLUSH_S
from brunix_twisted.config import redis_url
from brunix_twisted.config.settings import Settings, table
from dockerfile import value
from gateways import RunningGateway
from paths import ROOT
from scripted_engine import ScriptedEngine

FOLDER = ROOT / "deploy" / "kubernetes"
BASE = FOLDER / "base"
EXAMPLE = FOLDER / "overlays" / "embedded-engine"
SHARED = FOLDER / "overlays" / "valkey"
MARGIN_S = 5
OLDEST = "1.31"
"""The first release with everything that the manifests name; docs/kubernetes.md says so."""
NEWEST = "1.37"

METRICS = "PROXY_METRICS_LISTEN"
"""Where the number of streams in progress is told, by which the base is scaled."""

Resource = dict[str, Any]

both = pytest.mark.parametrize("folder", [BASE, EXAMPLE], ids=lambda folder: folder.name)
every = pytest.mark.parametrize("folder", [BASE, EXAMPLE, SHARED], ids=lambda folder: folder.name)


def load(path: Path) -> list[Resource]:
    return [resource for resource in yaml.safe_load_all(path.read_text("utf-8")) if resource]


def kustomization(folder: Path) -> Resource:
    (found,) = load(folder / "kustomization.yaml")
    return found


def resources(folder: Path) -> Iterator[Resource]:
    """What a kustomization names, as it is written, without its patches."""
    for name in kustomization(folder)["resources"]:
        path = folder / name
        if path.is_dir():
            yield from resources(path)
        else:
            yield from load(path)


def find(kind: str, name: str = "brunix-gateway") -> Resource:
    """One resource of the example, which has those of the base too."""
    (found,) = [
        resource for resource in resources(EXAMPLE) if (resource["kind"], resource["metadata"]["name"]) == (kind, name)
    ]
    return found


def pod(name: str = "brunix-gateway") -> Resource:
    template: Resource = find("Deployment", name)["spec"]["template"]
    return template


def container(name: str = "brunix-gateway") -> Resource:
    (only,) = pod(name)["spec"]["containers"]
    found: Resource = only
    return found


def ports(name: str = "brunix-gateway") -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(name)["ports"]}


def variables() -> dict[str, str]:
    """What the generated ConfigMap of the example puts into the gateway's environment."""
    found: dict[str, str] = {}
    for folder in (BASE, EXAMPLE):
        for generator in kustomization(folder)["configMapGenerator"]:
            lines = list(generator.get("literals", []))
            for name in generator.get("envs", []):
                lines += (folder / name).read_text("utf-8").splitlines()
            found |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return found


def settings() -> Settings:
    return Settings.read(variables(), {})


def rendered(folder: Path) -> list[Resource]:
    """What ``kubectl apply -k`` would send."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]) is not None:
            done = subprocess.run(  # noqa: S603 - as installed
                [*command, folder], capture_output=True, text=True, check=False, timeout=120
            )
            assert (done.returncode, done.stderr) == (0, "")
            return list(yaml.safe_load_all(done.stdout))
    pytest.skip("neither kubectl nor kustomize is installed")


def hold_schema(resource: Resource, version: str) -> None:
    """Let a resource be judged as the API server's strict validation would."""
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        pytest.fail(f"{resource['kind']} {resource['metadata']['name']}: {error.message} at {list(error.path)}")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@every
def test_schema(folder: Path, version: str) -> None:
    """``kubectl apply`` would refuse a manifest, or leave out what is misspelt in it."""
    found = list(resources(folder))
    assert len(found) >= 6
    for resource in found:
        hold_schema(resource, version)


@both
def test_rendered(folder: Path) -> None:
    """``kubectl apply -k`` would fail, or start gateways without their settings or with another image."""
    found = rendered(folder)
    for resource in found:
        hold_schema(resource, NEWEST)
    by_kind = {(resource["kind"], resource["metadata"]["name"]): resource for resource in found}
    (config,) = [resource for (kind, _), resource in by_kind.items() if kind == "ConfigMap"]
    gateway = by_kind["Deployment", "brunix-gateway"]["spec"]["template"]["spec"]["containers"][0]
    assert gateway["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    assert re.fullmatch(r"brunix-gateway-[a-z0-9]+", config["metadata"]["name"])
    (metric,) = by_kind["HorizontalPodAutoscaler", "brunix-gateway"]["spec"]["metrics"]
    if folder == EXAMPLE:
        assert config["data"] == variables()
        assert gateway["image"] == f"registry.example/brunix-twisted:{__version__}"
        assert metric["type"] == "Resource"
        namespaces = {resource["metadata"].get("namespace") for resource in found if resource["kind"] != "Namespace"}
        assert namespaces == {"brunix"}
    else:
        assert metric["type"] == "Pods"


def test_page(tmp_path: Path) -> None:
    """The overlay that the page shows for an engine of one's own would not work."""
    page = (FOLDER.parent.parent / "docs" / "kubernetes.md").read_text("utf-8")
    (overlay,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    shutil.copytree(BASE, tmp_path / "base")
    own = tmp_path / "overlays" / "own"
    own.mkdir(parents=True)
    (own / "kustomization.yaml").write_text(overlay, "utf-8")
    found = rendered(own)
    for resource in found:
        hold_schema(resource, NEWEST)
    (config,) = [resource["data"] for resource in found if resource["kind"] == "ConfigMap"]
    # What is merged stands beside what the base says.
    assert config["PROXY_LISTEN"] == settings().listen
    assert Settings.read(config, {}).grpc_target == "dns:///engine:50051"
    (newest,) = kustomization(own)["images"]
    assert newest["newTag"] == __version__


def test_settings() -> None:
    """A gateway would not start, or not heed a setting whose name nobody knows."""
    assert set(variables()) <= {row.variable for _, row in table()}
    assert health_check.address(variables()[METRICS]).port == ports()["metrics"]
    assert health_check.address(settings().listen).port == ports()["http"]
    assert "interface" not in settings().listen


def test_ports() -> None:
    """Requests would be sent to a port on which nobody listens, or be kept from the one on which somebody does."""
    for name in ("brunix-gateway", "brunix-engine"):
        for port in find("Service", name)["spec"]["ports"]:
            assert port["port"] == ports(name)[port["targetPort"]]
        let_in = {port["port"] for rule in find("NetworkPolicy", name)["spec"]["ingress"] for port in rule["ports"]}
        assert let_in == set(ports(name).values())
    asked = {
        container()[name]["httpGet"]["port"]
        for name in container()
        if name.endswith("Probe") and "httpGet" in container()[name]
    }
    assert asked == {"http"}


def test_selectors() -> None:
    """A Service, a policy or a budget would be for no pod at all."""
    for name in ("brunix-gateway", "brunix-engine"):
        labels = pod(name)["metadata"]["labels"].items()
        selectors = [
            find("Deployment", name)["spec"]["selector"]["matchLabels"],
            find("Service", name)["spec"]["selector"],
            find("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"],
        ]
        if name == "brunix-gateway":
            selectors.append(find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
            spread = pod()["spec"]["topologySpreadConstraints"]
            assert len(spread) == 2
            selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
        for selector in selectors:
            assert selector
            assert selector.items() <= labels


def test_account() -> None:
    """Whoever broke into a gateway would have a token for the cluster's API."""
    assert pod()["spec"]["serviceAccountName"] == find("ServiceAccount")["metadata"]["name"]
    assert find("ServiceAccount")["automountServiceAccountToken"] is False
    for name in ("brunix-gateway", "brunix-engine"):
        assert pod(name)["spec"]["automountServiceAccountToken"] is False


@pytest_twisted.ensureDeferred
async def test_probes(engine: ScriptedEngine, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the engine is away the cluster would restart every gateway, or send it questions."""

    async def asked() -> dict[str, int]:
        paths = {name: container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
        return {name: (await gateway.ask("GET", path)).status for name, path in paths.items()}

    assert await asked() == {"startup": 200, "readiness": 200, "liveness": 200}
    engine.stop()
    monkeypatch.setattr(health, "MAX_AGE_S", 0.0)  # a probe comes later than that
    assert await asked() == {"startup": 200, "readiness": 503, "liveness": 200}


def test_patience() -> None:
    """Answers under way would be killed in a rollout, before the gateway's own drain has ended them."""
    (sleep, sleep_s) = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    needed_s = int(sleep_s) + settings().drain_s + _FLUSH_S + MARGIN_S
    assert pod()["spec"]["terminationGracePeriodSeconds"] >= needed_s
    # /health answers within a second.
    assert container()["readinessProbe"]["timeoutSeconds"] > 1


@pytest.mark.parametrize("name", ["brunix-gateway", "brunix-engine"])
def test_hardening(name: str) -> None:
    """The pod would be refused by a namespace of the restricted kind, or whoever broke into it could change it."""
    whole, own = pod(name)["spec"], container(name)["securityContext"]
    user, _, group = value("USER").partition(":")
    assert whole["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert whole["enableServiceLinks"] is False
    assert {"requests", "limits"} <= set(container(name)["resources"])
    # The gateway cannot take a large body without a folder for it.
    mounts = {mount["mountPath"]: mount["name"] for mount in container(name).get("volumeMounts", [])}
    memory = {volume["name"] for volume in whole.get("volumes", []) if volume["emptyDir"]["medium"] == "Memory"}
    assert {path for path, volume in mounts.items() if volume in memory} == (
        {"/tmp"} if name == "brunix-gateway" else set()  # noqa: S108 - the container's
    )


def test_images() -> None:
    """Another release would run than the one that the manifests come with."""
    assert {container(name)["image"] for name in ("brunix-gateway", "brunix-engine")} == {
        f"brunix-twisted:{__version__}"
    }
    (image,) = kustomization(EXAMPLE)["images"]
    assert (image["name"], image["newTag"]) == ("brunix-twisted", __version__)


def test_autoscaling() -> None:
    """More gateways would never be started, or those that are would be taken away by the next apply."""
    autoscaler = find("HorizontalPodAutoscaler")["spec"]
    deployment = find("Deployment")
    assert autoscaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    # One that is gone for an update leaves another.
    assert autoscaler["minReplicas"] >= 2
    (metric,) = autoscaler["metrics"]
    assert metric["pods"]["metric"]["name"] == "brunix_gateway_streams_in_progress"
    # A gateway never has more of them than workers.
    assert int(metric["pods"]["target"]["averageValue"]) < settings().thread_workers
    (patch,) = [patch for item in kustomization(EXAMPLE)["patches"] for patch in load(EXAMPLE / item["path"])]
    assert (patch["kind"], patch["metadata"]["name"]) == ("HorizontalPodAutoscaler", "brunix-gateway")
    # Utilization is of what is requested.
    assert patch["spec"]["metrics"][0]["resource"]["name"] in container()["resources"]["requests"]


def test_engine() -> None:
    """The gateways would not find the engine, ask only one of several, or share it with anybody in the cluster."""
    service = find("Service", "brunix-engine")["spec"]
    assert service["clusterIP"] == "None"
    assert settings().grpc_target == f"dns:///brunix-engine:{service['ports'][0]['port']}"
    environment = {item["name"]: item["value"] for item in container("brunix-engine")["env"]}
    assert environment == {"BRUNIX_ENGINE_LISTEN": f"0.0.0.0:{ports('brunix-engine')['grpc']}"}
    for kind in ("startup", "readiness", "liveness"):
        assert container("brunix-engine")[f"{kind}Probe"]["grpc"] == {"port": ports("brunix-engine")["grpc"]}
    # It keeps its sessions to itself.
    assert find("Deployment", "brunix-engine")["spec"]["replicas"] == 1
    policy = find("NetworkPolicy", "brunix-engine")["spec"]
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": pod()["metadata"]["labels"]}}]
    assert "Egress" in policy["policyTypes"]
    assert "egress" not in policy


def test_reach() -> None:
    """Anybody in the cluster could ask the gateway, which authenticates nobody, or a gateway could ask no engine."""
    policy = find("NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    for rule in policy["ingress"]:
        assert rule["from"]
        assert all(who.get(kind) for who in rule["from"] for kind in who)
    let_out = [rule for rule in policy["egress"] if "to" in rule]
    (whom,) = [who["podSelector"]["matchLabels"] for rule in let_out for who in rule["to"]]
    assert whom.items() <= pod("brunix-engine")["metadata"]["labels"].items()
    assert [port["port"] for port in let_out[0]["ports"]] == [ports("brunix-engine")["grpc"]]
    (names,) = [rule for rule in policy["egress"] if "to" not in rule]
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}


# --- the overlay with Valkey ------------------------------------------------------------------------------------------


def patched(kind: str) -> Resource:
    """A gateway's resource of the overlay with Valkey, with its JSON patches."""
    whole = copy.deepcopy(find(kind))
    for patch in kustomization(SHARED)["patches"]:
        if patch["target"] != {"kind": kind, "name": "brunix-gateway"}:
            continue
        for operation in yaml.safe_load(patch["patch"]):
            *path, last = operation["path"].strip("/").split("/")
            parent: Any = whole
            for step in path:
                parent = parent[int(step) if isinstance(parent, list) else step]
            assert (operation["op"] == "add") == (last == "-" or last not in parent)
            if last == "-":
                parent.append(operation["value"])
            else:
                parent[last] = operation["value"]
    return whole


def valkey() -> dict[str, Resource]:
    return {resource["kind"]: resource for resource in load(SHARED / "valkey.yaml")}


def environment(container: Resource) -> dict[str, Any]:
    return {item["name"]: item.get("value") or item["valueFrom"]["secretKeyRef"] for item in container["env"]}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_patched_schema(version: str) -> None:
    """The patched resources are as valid as the others."""
    for kind in ("Deployment", "NetworkPolicy", "Service"):
        assert patched(kind) != find(kind)
        hold_schema(patched(kind), version)


def test_shared_rendered() -> None:
    """What ``kubectl apply -k`` would send has the patches."""
    by_kind = {(resource["kind"], resource["metadata"]["name"]): resource for resource in rendered(SHARED)}
    for resource in by_kind.values():
        hold_schema(resource, NEWEST)
    gateway = by_kind["Deployment", "brunix-gateway"]["spec"]["template"]["spec"]["containers"][0]
    assert gateway["env"] == patched("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]


def test_shared_state() -> None:
    """All gateways use the one Valkey, with its password, the same secret, and the name of its Service."""
    (gateway,) = patched("Deployment")["spec"]["template"]["spec"]["containers"]
    (server,) = valkey()["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    found, served = environment(gateway), environment(server)
    assert found["VALKEY_PASSWORD"] == served["VALKEY_PASSWORD"] == {"name": "brunix-state", "key": "password"}
    assert found["PROXY_STATE_SECRET"] == {"name": "brunix-state", "key": "secret"}
    given = {"PROXY_STATE": found["PROXY_STATE"].replace("$(VALKEY_PASSWORD)", "a1b2"), "PROXY_STATE_SECRET": 64 * "c"}
    address = redis_url.parse(Settings.read(variables() | given, {}).state.url)
    (port,) = valkey()["Service"]["spec"]["ports"]
    assert address.hosts == ((valkey()["Service"]["metadata"]["name"], port["port"]),)
    assert address.password == "a1b2"  # noqa: S105 - of nothing
    options = dict(itertools.pairwise(server["args"]))
    assert options["--requirepass"] == "$(VALKEY_PASSWORD)"
    # Kubernetes replaces only what stands before it.
    assert list(found).index("VALKEY_PASSWORD") < list(found).index("PROXY_STATE")
    assert patched("Service")["spec"]["sessionAffinity"] == "None"
    page = (FOLDER.parent.parent / "docs" / "kubernetes.md").read_text("utf-8")
    command = re.search(r"create secret generic brunix-state((?: \\\n|.)*)", page)
    assert command is not None
    assert set(re.findall(r"--from-literal=(\w+)=", command[1])) == {"password", "secret"}


def test_valkey() -> None:
    """Valkey's parts fit together: only the gateways reach it, and its data is on its volume."""
    stateful, service, policy = (valkey()[kind] for kind in ("StatefulSet", "Service", "NetworkPolicy"))
    labels = stateful["spec"]["template"]["metadata"]["labels"].items()
    whole = stateful["spec"]["template"]["spec"]
    (server,) = whole["containers"]
    (port,) = server["ports"]
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
    for selector in (
        stateful["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": pod()["metadata"]["labels"]}}]
    assert [item["port"] for item in rule["ports"]] == [port["containerPort"]]
    assert "egress" not in policy["spec"]
    (leaves,) = [
        rule
        for rule in patched("NetworkPolicy")["spec"]["egress"]
        if any(who["podSelector"]["matchLabels"].items() <= labels for who in rule.get("to", []))
    ]
    assert [item["port"] for item in leaves["ports"]] == [port["containerPort"]]
    (mount,) = server["volumeMounts"]
    assert mount["name"] == stateful["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert dict(itertools.pairwise(server["args"]))["--dir"] == mount["mountPath"]
    assert whole["securityContext"]["runAsNonRoot"] is True
    assert whole["securityContext"]["fsGroup"] == whole["securityContext"]["runAsGroup"]
    assert server["securityContext"] == container()["securityContext"]
    assert re.search(r":[0-9]+\.[0-9]+\.[0-9]+$", server["image"])
