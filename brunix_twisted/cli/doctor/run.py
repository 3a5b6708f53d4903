"""The order of the checks, from the address to the engine; one that cannot be gone beyond ends the run."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

import attrs

from brunix_twisted.cli.diagnosis import (
    EXPECTED,
    Diagnosis,
    DiagnosisError,
    diagnose_exception,
    tls_diagnosis,
)
from brunix_twisted.cli.doctor import http_checks, identity, idle, network, report
from brunix_twisted.cli.doctor.findings import Finding, status
from brunix_twisted.cli.doctor.questions import QUESTION, EngineQuestions
from brunix_twisted.cli.doctor.time_budget import STEP_S, TimeBudget, start
from brunix_twisted.cli.http_client import Target
from brunix_twisted.cli.sockets import ResolvedAddress
from brunix_twisted.cli.terminal import INTERRUPTED, print_err, write


@attrs.define
class DoctorRun:
    """One run of the doctor."""

    target: Target
    environment: Mapping[str, str]
    given: str
    """The address as somebody wrote it."""
    corrections: Sequence[str]
    options: Namespace
    limits: TimeBudget
    questions: int = 0
    """How many the engine was asked."""

    def findings(self) -> Iterator[Finding]:
        """Go the whole way, and give the findings as they are made."""
        where = self.target.address
        yield from network.check_corrections(self.given, where, self.corrections)
        addresses = yield from self._places()
        if not addresses:
            return
        found = yield from self._identity(addresses)
        if found is None:
            return
        yield identity.check_intermediaries(found)
        health = identity.check_health(where, found)
        yield health
        model = yield from self._model(found)
        yield from self._guarded("connection", self._exchange)
        yield from self._guarded("body size", self._large_body)
        yield from self._guarded("browsers", self._browsers)
        yield from self._guarded("names", self._names)
        if not self.options.ask:
            yield Finding("answers", "note", "the engine was asked nothing, as you wished")
        elif health.level == "problem" or model is None:
            yield Finding("answers", "note", "the engine was asked nothing, for it would not have answered")
        else:
            yield from self._interview(model)

    def _guarded(self, check: str, run: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        """Let a check that meets a broken network end with a finding."""
        try:
            yield from run()
        except EXPECTED as error:
            diagnosis = diagnose_exception(error, self.target.address)
            says = f"this could not be looked at: {diagnosis.message}"
            yield Finding(check, "warning", says, figures={"kind": diagnosis.kind})

    # The way.

    def _places(self) -> Generator[Finding, None, list[ResolvedAddress]]:
        """Find where to connect to; nothing where nobody is."""
        where = self.target.address
        try:
            addresses = network.look_up(self.target, self.limits.step_s())
            attempts = network.measure_addresses(self.target, addresses, self.limits.step_s() / min(len(addresses), 2))
        except DiagnosisError as error:
            yield _problem("address", error.diagnosis)
            return []
        yield from network.check_addresses(where, attempts)
        yield from self._guarded("proxies", self._detour)
        return [each.resolved for each in attempts if each.diagnosis is None]

    def _detour(self) -> Iterable[Finding]:
        where = self.target.address
        proxy = network.proxy_for(where, self.environment)
        proxy_check = None if proxy is None else network.measure_proxy(self.target, *proxy, self.limits.step_s())
        return [network.check_proxy(where, proxy_check)]

    def _identity(self, addresses: Sequence[ResolvedAddress]) -> Generator[Finding, None, identity.Identity | None]:
        """Find out who answers; None where it is not the gateway."""
        try:
            if self.target.address.secure:
                yield network.check_tls(network.measure_tls(self.target, self.limits.step_s()))
            found = identity.measure_identity(self.target, self.limits.step_s())
        except EXPECTED as error:
            yield self._nobody(error, addresses[0])
            return None
        judged = identity.check_identity(self.target.address, found)
        yield judged
        return found if judged.level == "ok" else None

    def _nobody(self, error: Exception, resolved: ResolvedAddress) -> Finding:
        """Say why nothing that was understood came back."""
        where = self.target.address
        diagnosis = diagnose_exception(error, where)
        unclear = diagnosis.kind in {"closed", "no_http", "timeout", "unreachable", "broken_off"}
        if not where.secure and unclear and network.speaks_tls(self.target, resolved, STEP_S):
            diagnosis = tls_diagnosis(where)
        if diagnosis.kind == "plain_http":
            diagnosis = attrs.evolve(diagnosis, remedy=self._try_plain(diagnosis.remedy))
        return _problem("tls" if where.secure else "gateway", diagnosis)

    def _try_plain(self, remedy: str) -> str:
        try:
            identity.page(network.plain(self.target), "/health/live", STEP_S)
        except EXPECTED:
            return remedy
        return remedy.replace("Most likely it is plain HTTP", "It is plain HTTP")

    # What costs the engine nothing.

    def _model(self, found: identity.Identity) -> Generator[Finding, None, str | None]:
        """Find the name to ask by; None where there is none."""
        names, wanted = identity.listed(found.models), self.options.model
        tried = wanted or f"{next(iter(names), '')}:latest"
        try:
            known = identity.page(self.target, f"/v1/models/{quote(tried, safe='/:@+')}", self.limits.step_s()).ok
        except EXPECTED as error:
            yield _problem("model", diagnose_exception(error, self.target.address))
            return None
        yield identity.check_model(names, wanted, known)
        # Where the name is wrong, everything else can still be looked at by the right one.
        return wanted if wanted and known else next(iter(names), None)

    def _exchange(self) -> Iterable[Finding]:
        return http_checks.check_round_trip(http_checks.measure_round_trip(self.target, self.limits.step_s()))

    def _large_body(self) -> Iterable[Finding]:
        try:
            answer = http_checks.measure_large_body(self.target, self.limits.step_s())
        except ConnectionError:
            answer = None
        return [http_checks.check_large_body(answer, self.target.address)]

    def _browsers(self) -> Iterable[Finding]:
        origin = self.options.origin
        seen, strange = (
            http_checks.measure_preflight(self.target, page, self.limits.step_s())
            for page in (origin or http_checks.DEFAULT_ORIGIN, http_checks.UNKNOWN_ORIGIN)
        )
        return [http_checks.check_preflight(seen, strange, asked=origin is not None)]

    def _names(self) -> Iterable[Finding]:
        answer = http_checks.measure_unknown_host(self.target, self.limits.step_s())
        return [http_checks.check_unknown_host(answer, self.target.address)]

    # What the engine is asked, and what takes patience.

    def _interview(self, model: str) -> Iterator[Finding]:
        questions = EngineQuestions(
            self.target, self.limits, model, self.options.question or QUESTION, self.options.metrics
        )
        idling: list[Finding] = []
        beside = start(lambda: idling.extend(self._guarded("idle", self._idle)))
        yield from questions.findings()
        self.questions = questions.asked
        beside.join(self.limits.left_s)
        yield from idling

    def _idle(self) -> Iterable[Finding]:
        if self.limits.patience_s is None:
            return []
        timeout_s = min(idle.MAX_IDLE_S, self.limits.patience_s)
        return [idle.check_idle(idle.measure_idle(self.target, timeout_s), timeout_s)]


def _problem(check: str, diagnosis: Diagnosis) -> Finding:
    return Finding(check, "problem", diagnosis.message, "", diagnosis.remedy, {"kind": diagnosis.kind})


def doctor(options: Namespace, target: Target, corrections: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command."""
    root, stdout = target.address.root, sys.stdout
    given = options.address or environment.get("BRUNIX_URL") or root
    run = DoctorRun(target, environment, given, corrections, options, TimeBudget(options.patient))
    findings: list[Finding] = []
    try:
        if not options.json:
            write(report.heading(root))
        for finding in run.findings():
            findings.append(finding)
            if not options.json:
                write(report.block(report.clean(finding, stdout), stdout, environment))
        conclude = report.as_json if options.json else report.summary
        write(conclude(root, findings, run.questions, run.limits.took_s))
    except KeyboardInterrupt:
        print_err("\nbrunix doctor: stopped")
        return INTERRUPTED
    return status(findings)
