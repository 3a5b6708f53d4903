"""Settings: where they come from, what they refuse, and what the reference page says of them."""

from __future__ import annotations

import attrs
import pytest

from brunix_twisted.config.rows import Row
from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings, table
from brunix_twisted.config.state_address import StateAddress
from settings_table import PAGE, rewritten


def test_page() -> None:
    """The reference page would tell an operator something that is not so."""
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "docs/settings.md is out of date; run: make docs-tables"


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("8171", "tcp:8171:interface=127.0.0.1"),
        ("0", "tcp:0:interface=127.0.0.1"),
        (" 8171\n", "tcp:8171:interface=127.0.0.1"),
        ("localhost:8171", "tcp:8171:interface=127.0.0.1"),
        ("127.0.0.1:8171", "tcp:8171:interface=127.0.0.1"),
        ("0.0.0.0:8171", "tcp:8171:interface=0.0.0.0"),
        ("*:8171", "tcp:8171:interface=0.0.0.0"),
        (":8171", "tcp:8171:interface=0.0.0.0"),
        ("[::]:8171", r"tcp6:8171:interface=\:\:"),
        ("[::1]:8171", r"tcp6:8171:interface=\:\:1"),
        ("/run/a:b.sock", r"unix:/run/a\:b.sock"),
        ("tcp:8171", "tcp:8171"),
        ("tcp:8171:interface=10.0.0.1", "tcp:8171:interface=10.0.0.1"),
        ("unix:/run/brunix.sock:mode=660", "unix:/run/brunix.sock:mode=660"),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
    ],
)
@pytest.mark.parametrize(("variable", "name"), [("PROXY_LISTEN", "listen"), ("PROXY_METRICS_LISTEN", "metrics_listen")])
def test_where_to_listen(variable: str, name: str, text: str, description: str) -> None:
    """A port, or a host and a port, are enough to say where to listen."""
    assert getattr(Settings.read({variable: text}, {}), name) == description


@pytest.mark.parametrize(
    ("variable", "text", "instead"),
    [
        ("PROXY_LISTEN", "http://0.0.0.0:8171/", "write it without http://, as 0.0.0.0:8171"),
        ("PROXY_LISTEN", "65536", "a port is a number from 0 to 65535"),
        ("PROXY_LISTEN", "0.0.0.0:99999", "a port is a number from 0 to 65535"),
        ("PROXY_LISTEN", '"8171"', "without quotes"),
        ("PROXY_METRICS_LISTEN", "'tcp:9464'", "without quotes"),
        ("PROXY_THREAD_WORKERS", '"20"', "without quotes"),
        ("BRUNIX_GRPC_TARGET", "http://engine:50051", "write it without http://, as engine:50051"),
        ("BRUNIX_GRPC_TARGET", "HTTP://engine:50051/", "write it without http://, as engine:50051"),
        ("BRUNIX_GRPC_TARGET", "grpc://engine:50051/path", "write it without grpc://, as engine:50051"),
        (
            "BRUNIX_GRPC_TARGET",
            "https://engine:50051",
            "write it without https://, as engine:50051, and name the certificates to trust in BRUNIX_GRPC_TLS_CA",
        ),
        ("BRUNIX_GRPC_TARGET", "dns://engine:50051", "write dns:///engine:50051, with three slashes"),
        ("BRUNIX_GRPC_TARGET", "ipv4://10.0.0.1:50051", "write ipv4:10.0.0.1:50051, without slashes"),
        ("BRUNIX_GRPC_TARGET", "engine:50051/", "write it without the slash at the end, as engine:50051"),
        ("BRUNIX_GRPC_TARGET", '"engine:50051"', "without quotes"),
    ],
)
def test_what_to_write_instead(variable: str, text: str, instead: str) -> None:
    """A value that is nearly right is refused in one line that says what to write."""
    with pytest.raises(SettingError) as refusal:
        Settings.read({variable: text}, {})
    assert str(refusal.value).endswith(instead)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    "target", ["unix:///run/engine.sock", "unix:/run/engine/", "dns://10.0.0.1/engine:50051", "[::1]:50051", "engine"]
)
def test_other_targets(target: str) -> None:
    """What gRPC understands is left as it is."""
    assert Settings.read({"BRUNIX_GRPC_TARGET": target}, {}).grpc_target == target


def test_given_defaults() -> None:
    """A gateway that is started without any setting would not be where the documentation says it is."""
    settings = Settings.read({}, {})
    assert settings == Settings()
    assert settings.grpc_target == "localhost:50051"
    assert settings.model_id == "brunix"
    assert settings.model_aliases == ()
    assert settings.thread_workers == 20
    assert settings.listen == "tcp:8000:interface=127.0.0.1"
    assert settings.engine_timeout_s == 600.0
    assert settings.first_token_timeout_s == 120.0
    assert settings.stall_timeout_s == 60.0
    assert settings.buffer_bytes == 1024 * 1024
    assert settings.grpc_tls_ca is None


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("BRUNIX_GRPC_TARGET", "dns:///engines:50051", "dns:///engines:50051"),
        ("PROXY_MODEL_ID", "brunix-2", "brunix-2"),
        ("PROXY_MODEL_ALIASES", "gpt-4o, gpt-4o-mini ,", ("gpt-4o", "gpt-4o-mini")),
        ("PROXY_MODEL_ALIASES", "*", ("*",)),
        ("PROXY_SIDE_REQUESTS", "refuse", "refuse"),
        ("PROXY_SIDE_REQUEST_PATTERNS", "### Aufgabe: ; 标题: 请总结一下;", ("### Aufgabe:", "标题: 请总结一下")),
        ("PROXY_THREAD_WORKERS", "500", 500),
        ("PROXY_LISTEN", "tcp:8000", "tcp:8000"),
        ("PROXY_ENGINE_TIMEOUT_S", "1.5", 1.5),
        ("PROXY_FIRST_TOKEN_TIMEOUT_S", "5", 5.0),
        ("PROXY_STALL_TIMEOUT_S", "5", 5.0),
        ("PROXY_BUFFER_BYTES", "65536", 65_536),
        ("BRUNIX_GRPC_TARGET", "ipv4:10.0.0.1:50051,10.0.0.2:50051", "ipv4:10.0.0.1:50051,10.0.0.2:50051"),
        ("PROXY_QUEUE_SIZE", "0", 0),
        ("PROXY_QUEUE_SIZE", "auto", None),
        ("PROXY_QUEUE_TIMEOUT_S", "5", 5.0),
        ("PROXY_DRAIN_S", "0", 0.0),
    ],
)
def test_environment_and_option(variable: str, text: str, value: object) -> None:
    """A setting would not reach the gateway by its variable, or by its option."""
    name, row = next((name, row) for name, row in table() if row.variable == variable)
    assert getattr(Settings.read({variable: text}, {}), name) == value
    assert getattr(Settings.read({}, {row.option: text}), name) == value


def test_option_beats_environment() -> None:
    """An operator who overrides a unit file's variable on the command line would be ignored."""
    settings = Settings.read({"PROXY_MODEL_ID": "one"}, {"model-id": "two"})
    assert settings.model_id == "two"


def test_empty_variable() -> None:
    """A unit file with ``PROXY_THREAD_WORKERS=`` would not start."""
    assert Settings.read({"PROXY_THREAD_WORKERS": ""}, {}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("BRUNIX_GRPC_TARGET", "local host:1"),
        ("PROXY_MODEL_ID", "two words"),
        ("PROXY_MODEL_ID", "-dash"),
        ("PROXY_MODEL_ID", "line\nbreak"),
        ("PROXY_MODEL_ALIASES", "good,not good"),
        ("PROXY_SIDE_REQUESTS", "on"),
        ("PROXY_SIDE_REQUESTS", "Refuse"),
        ("PROXY_SIDE_REQUEST_PATTERNS", "### Aufgabe:;Titel"),
        ("PROXY_SIDE_REQUEST_PATTERNS", "x" * 501),
        ("PROXY_THREAD_WORKERS", "many"),
        ("PROXY_THREAD_WORKERS", "0"),
        ("PROXY_THREAD_WORKERS", "-1"),
        ("PROXY_THREAD_WORKERS", "1_000"),
        ("PROXY_THREAD_WORKERS", "٣"),
        ("PROXY_THREAD_WORKERS", "10001"),
        ("PROXY_ENGINE_TIMEOUT_S", "0"),
        ("PROXY_ENGINE_TIMEOUT_S", "nan"),
        ("PROXY_ENGINE_TIMEOUT_S", "inf"),
        ("PROXY_ENGINE_TIMEOUT_S", "1e3"),
        ("PROXY_QUEUE_SIZE", "-1"),
        ("PROXY_QUEUE_SIZE", "automatic"),
    ],
)
def test_refused(variable: str, text: str) -> None:
    """A mistyped setting would be taken, or refused without saying which, what it was and what is allowed."""
    _, row = next((name, row) for name, row in table() if row.variable == variable)
    for environment, options in (({variable: text}, {}), ({}, {row.option: text})):
        with pytest.raises(SettingError) as refusal:
            Settings.read(environment, options)
        line = str(refusal.value)
        assert variable in line
        assert repr(text) in line
        assert row.rule.allowed in line
        assert "\n" not in line


# Twisted judges endpoints, when it makes them: see test_tap.py.
@pytest.mark.parametrize(
    "row",
    [row for _, row in table() if row.variable not in {"PROXY_LISTEN", "PROXY_METRICS_LISTEN"}],
    ids=lambda row: row.variable,
)
def test_every_setting_refuses_nonsense(row: Row) -> None:
    """A mistyped setting would be taken silently."""
    with pytest.raises(SettingError) as refusal:
        Settings.read({row.variable: "a b"}, {})
    assert str(refusal.value).startswith(f"{row.variable} is {row.rule.shown('a b')!r}; allowed: ")


def test_every_default_is_allowed() -> None:
    """Writing a default out in a unit file would stop the start."""
    for name, row in table():
        assert getattr(Settings.read({row.variable: row.default}, {}), name) == getattr(Settings(), name)


def test_names_do_not_collide() -> None:
    """Two settings would share an option, and one of them could not be set."""
    options = [row.option for _, row in table()]
    assert len(set(options)) == len(options) == len(attrs.fields(Settings))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("auto", StateAddress("auto")),
        ("memory:", StateAddress("memory")),
        ("memory", StateAddress("memory")),
        ("sqlite:/var/lib/brunix/state.sqlite", StateAddress("sqlite", path="/var/lib/brunix/state.sqlite")),
        ("sqlite:state.sqlite", StateAddress("sqlite", path="state.sqlite")),
        ("redis://:hush@host:6379/1", StateAddress("redis", url="redis://:hush@host:6379/1")),
        ("rediss://host", StateAddress("redis", url="rediss://host")),
        ("redis+sentinel://a:26379,b:26379/main", StateAddress("redis", url="redis+sentinel://a:26379,b:26379/main")),
    ],
)
def test_where_the_state_is(text: str, address: StateAddress) -> None:
    """The state is kept where the setting says."""
    assert Settings.read({"PROXY_STATE": text, "PROXY_STATE_SECRET": 32 * "x"}, {}).state == address


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("sqlite:///var/lib/state.sqlite", "write it without //, as sqlite:/var/lib/brunix/state.sqlite"),
        ("sqlite:", "write the path of a file, as sqlite:/var/lib/brunix/state.sqlite"),
        ("sqlite::memory:", "write the path of a file, as sqlite:/var/lib/brunix/state.sqlite"),
        ("sqlite:~/state.sqlite", "write the path of a file, as sqlite:/var/lib/brunix/state.sqlite"),
        ("redis://", "write it as redis://:password@host:6379/0"),
        ("redis://host:port", "write it as redis://:password@host:6379/0"),
        ("/var/lib/state.sqlite", "auto, memory:, sqlite:PATH, or a URL that begins with redis://"),
        ("'sqlite:x'", "without quotes"),
    ],
)
def test_a_state_that_is_misspelt(text: str, instead: str) -> None:
    """The error says how to write it."""
    with pytest.raises(SettingError) as refusal:
        Settings.read({"PROXY_STATE": text}, {})
    assert instead in str(refusal.value)


@pytest.mark.parametrize(
    "environment",
    [
        {"PROXY_STATE_SECRET": "hush"},
        {"PROXY_STATE_SECRET": 40 * "hush "},
        {"PROXY_STATE": "redsi://user:hush@host"},
        {"PROXY_STATE": "redis://:hu@sh@host:x"},
        {"PROXY_STATE": "redis://:hush@host"},
        {"PROXY_STATE": "redis://host:x?password=hush"},
    ],
)
def test_no_error_contains_a_secret(environment: dict[str, str]) -> None:
    """What an operator pastes into a ticket contains no password."""
    with pytest.raises(SettingError) as refusal:
        Settings.read(environment, {})
    assert "PROXY_STATE" in str(refusal.value)
    assert "hu" not in str(refusal.value)
    assert "sh@" not in str(refusal.value)


def test_no_settings_show_a_secret() -> None:
    """A log of the settings contains no password."""
    settings = Settings.read({"PROXY_STATE": "redis://:hush@host", "PROXY_STATE_SECRET": 32 * "y"}, {})
    assert settings.state_secret == 32 * "y"
    assert "hush" not in repr(settings)
    assert "yyy" not in repr(settings)
    assert "hush" not in repr(settings.state)


def test_redis_needs_a_secret() -> None:
    """Gateways that share conversations would not find each other's."""
    with pytest.raises(SettingError, match=r"PROXY_STATE_SECRET is ''; allowed: with Redis, .* openssl rand -hex 32"):
        Settings.read({"PROXY_STATE": "redis://host"}, {})
