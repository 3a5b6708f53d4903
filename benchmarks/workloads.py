"""What is asked of everything that is compared, in the quick form and in the full one."""

from __future__ import annotations

import attrs

from jobs import Job

THREADED = ("gateway", "A", "A+")
# The gateway once more, in a process of its own: how far two measurements of the same thing lie apart.
AGAIN = "gateway'"

FORMS = ("quick", "full")


@attrs.frozen(kw_only=True)
class Workload:
    """One kind of work, who does it, and how often."""

    name: str
    title: str
    kind: str
    """What the client does (see `jobs`), or *start*: nothing but starting a server."""
    form: str = "whole"
    connections: int = 1
    tokens: int = 1
    per_second: float = 0
    seconds: float = 0
    """Closed: how long a measurement takes. Open: the most that all answers may take."""
    workers: int = 0
    """0: one for each connection, and 20 at least."""
    dialect: str = "openai"
    fresh: bool = False
    """Whether each measurement has a server that has done nothing before."""
    variants: tuple[str, ...] = THREADED
    rounds: int = 3
    shown: tuple[str, ...] = ()
    """The figures that tell of it, the one that matters most first."""

    @property
    def threads(self) -> int:
        """How many workers a server gets."""
        return self.workers or max(20, self.connections)

    def job(self, port: int) -> Job:
        """What the client is told."""
        return Job(
            kind=self.kind,
            form=self.form,
            port=port,
            dialect=self.dialect,
            connections=self.connections,
            tokens=self.tokens,
            per_second=self.per_second,
            seconds=self.seconds,
            sample_every=max(1, int(self.connections * self.tokens / 20_000)),
        )


WHOLE = ("requests_per_s", "cpu_us_per_request", "first_ms")
FLAT = ("tokens_per_s", "cpu_us_per_token", "voluntary_per_token", "involuntary_per_token")
PACED = (
    *("cpu_us_per_token", "delay_ms", "late_ms", "first_ms", "voluntary_per_token", "involuntary_per_token"),
    *("delay_p99_ms", "gap_p99_ms", "complete"),
)
# Of more streams than a process can serve in time.
CROWDED = (
    "late_ms",
    "first_ms",
    "complete",
    *(name for name in PACED if name not in {"late_ms", "first_ms", "complete"}),
)
CROWD = 1000


def whole(connections: int, dialect: str = "openai") -> Workload:
    """Whole answers of 60 tokens, one after another on each connection."""
    return Workload(
        name=f"whole-{connections}" + _suffix(dialect),
        title=f"whole answers, {connections} at a time" + _beside(dialect),
        kind="closed",
        form="whole",
        connections=connections,
        tokens=60,
        seconds=1,
        dialect=dialect,
        shown=WHOLE,
    )


def flat(connections: int, dialect: str = "openai") -> Workload:
    """Streams that get as many tokens as the connection takes."""
    return Workload(
        name=f"stream-flat-{connections}" + _suffix(dialect),
        title=f"streams flat out, {connections} at a time" + _beside(dialect),
        kind="closed",
        form="stream",
        connections=connections,
        tokens=500,
        seconds=1,
        dialect=dialect,
        shown=FLAT,
    )


def paced(connections: int, seconds: float, per_second: float = 20, *, workers: int = 0) -> Workload:
    """Streams at the speed of an engine, all opened at once."""
    at_20 = per_second == 20  # noqa: PLR2004 - the usual one
    return Workload(
        name=f"paced-{connections}" + ("" if at_20 else f"-at-{per_second:g}") + (f"-on-{workers}" if workers else ""),
        title=f"{connections:,} streams at {per_second:g} tokens/s" + (f", {workers} workers" if workers else ""),
        kind="open",
        form="stream",
        connections=connections,
        tokens=int(seconds * per_second),
        per_second=per_second,
        seconds=8 * seconds + 20,
        workers=workers,
        shown=PACED if connections < CROWD else CROWDED,
    )


_BESIDE = {"ollama": "as Ollama's clients ask", "responses": "at /v1/responses", "messages": "at /v1/messages"}


def _suffix(dialect: str) -> str:
    return "" if dialect == "openai" else f"-{dialect}"


def _beside(dialect: str) -> str:
    return "" if dialect == "openai" else f", {_BESIDE[dialect]}"


SEQUENTIAL = Workload(
    name="sequential",
    title="whole answers, one after another, on one connection",
    kind="closed",
    form="whole",
    tokens=20,
    seconds=1,
    variants=("gateway", "engine", "litellm", "stub"),
    shown=("first_ms",),
)
FIRST = attrs.evolve(
    paced(200, 1, per_second=10),
    name="first-200",
    title="200 streams opened at once",
    shown=("first_ms", "first_p99_ms", "complete"),
)
MEMORY = Workload(
    name="memory",
    title="500 streams open",
    kind="hold",
    form="stream",
    connections=500,
    tokens=600,
    per_second=1,
    fresh=True,
    shown=("memory_kb_per_stream", "idle_mb", "threads"),
)
START = Workload(name="start", title="from the start to the first answer", kind="start", shown=("start_s",))


def _planned(workload: Workload, rounds: int, *variants: str, seconds: float | None = None) -> Workload:
    """Say how often, by whom, and in a closed workload how long something is measured."""
    return attrs.evolve(
        workload,
        rounds=rounds,
        variants=variants or workload.variants,
        seconds=workload.seconds if seconds is None else seconds,
    )


QUICK = (
    _planned(START, 2),
    _planned(MEMORY, 1, "gateway", "aio", "A"),
    _planned(SEQUENTIAL, 4, seconds=0.4),
    _planned(whole(20), 4, "gateway", AGAIN, "aio", "A", "A+", "engine", "stub", seconds=0.6),
    _planned(flat(1), 2, "gateway", "A", "A+", "engine", seconds=0.5),
    _planned(flat(20), 4, "gateway", AGAIN, "aio", "A", "A+", "stub", seconds=0.7),
    *(_planned(flat(20, dialect), 2, "gateway", "aio", seconds=0.5) for dialect in ("responses", "messages")),
    _planned(FIRST, 3, "gateway", "aio", "A", "A+"),
    _planned(paced(100, 2), 3, "gateway", "aio", "A", "A+"),
    _planned(paced(500, 3), 3, "gateway", "A", "A+", "aio"),
    _planned(paced(1000, 3, per_second=10), 1, "gateway", "A"),
    _planned(paced(1000, 3), 1, "two", "aio"),
)
FULL = (
    _planned(START, 10, "gateway", "aio", "two", "A", "A+"),
    _planned(MEMORY, 4, "gateway", "aio", "A", "A+"),
    _planned(SEQUENTIAL, 10),
    _planned(whole(1), 10, *THREADED, "engine"),
    _planned(whole(20), 10, "gateway", AGAIN, "aio", "two", "A", "A+", "engine", "stub"),
    _planned(whole(20, "ollama"), 10),
    *(_planned(whole(20, dialect), 10, "gateway", "aio") for dialect in ("responses", "messages")),
    _planned(whole(100), 10),
    _planned(flat(1), 10, *THREADED, "engine"),
    _planned(flat(20), 10, "gateway", AGAIN, "aio", "two", "A", "A+", "engine", "stub"),
    _planned(flat(20, "ollama"), 10),
    *(_planned(flat(20, dialect), 10, "gateway", "aio") for dialect in ("responses", "messages")),
    _planned(flat(100), 10),
    _planned(FIRST, 10),
    _planned(paced(20, 2), 10),
    _planned(paced(100, 2), 10, "gateway", AGAIN, "aio", "A", "A+", "engine"),
    _planned(paced(100, 1, workers=20), 5, "gateway", "A"),
    _planned(paced(500, 3), 10, "gateway", "aio", "two", "A", "A+"),
    _planned(paced(1000, 5, per_second=10), 6, "gateway", "A"),
    _planned(paced(1000, 4), 5, "gateway", "two", "aio", "A"),
)


def plan(form: str) -> dict[str, Workload]:
    """A form's workloads by name. One that only the full form has can be picked in the quick form too."""
    full = {each.name: each for each in FULL}
    return full if form == "full" else {each.name: each for each in QUICK}


def pick(form: str, names: list[str]) -> list[Workload]:
    """
    The workloads of these names, or all of a form.

    :raises KeyError: there is none of this name.
    """
    if not names:
        return list(plan(form).values())
    known = {**plan("full"), **plan(form)}
    return [known[name] for name in names]
