"""The order of the checks, from the address to the engine. A check that fails badly enough ends the run."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

import attrs

from brunix_twisted.cli.diagnosis import EXPECTED, Diagnosis, DiagnosisError, diagnose_exception, tls_diagnosis
from brunix_twisted.cli.doctor import http_checks, identity, idle, mismatches, network, report
from brunix_twisted.cli.doctor.engine_port import measure_published
from brunix_twisted.cli.doctor.findings import Finding, exit_status
from brunix_twisted.cli.doctor.questions import QUESTION, EngineQuestions
from brunix_twisted.cli.doctor.time_budget import STEP_S, TimeBudget, start_thread
from brunix_twisted.cli.http_client import Target, get
from brunix_twisted.cli.sockets import ResolvedAddress
from brunix_twisted.cli.terminal import INTERRUPTED, print_err, write


@attrs.define
class DoctorRun:
    """One run of the doctor."""

    target: Target
    environment: Mapping[str, str]
    given: str
    """The address as the user entered it."""
    corrections: Sequence[str]
    options: Namespace
    budget: TimeBudget
    questions: int = 0
    """The number of questions that the engine received."""

    def findings(self) -> Iterator[Finding]:
        """Run all checks, and yield the findings as they are made."""
        where = self.target.address
        yield from network.check_corrections(self.given, where, self.corrections)
        addresses = yield from self._addresses()
        if not addresses:
            return
        found = yield from self._identity(addresses)
        if found is None:
            return
        yield identity.check_intermediaries(found)
        health = identity.check_health(where, found, self._published_engine)
        yield health
        model = yield from self._model(found)
        yield from self._guarded("connection", self._round_trip)
        yield from self._guarded("body size", self._large_body)
        yield from self._guarded("browsers", self._preflight)
        yield from self._guarded("names", self._unknown_host)
        processes = identity.process_count(found)
        # Before the doctor's own questions, which are not a client's.
        yield from self._guarded("clients", lambda: self._mismatches(processes))
        if not self.options.ask:
            yield Finding("answers", "note", "not checked because of --no-questions")
        elif health.level == "problem" or model is None:
            yield Finding("answers", "note", "not checked: the engine would not answer")
        else:
            yield from self._ask_engine(model, processes)

    def _published_engine(self) -> str | None:
        return measure_published(self.target.address.host, self.environment, self.budget.step_s())

    def _guarded(self, check: str, run: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        """Turn a network error within a check into a finding."""
        try:
            yield from run()
        except EXPECTED as error:
            diagnosis = diagnose_exception(error, self.target.address)
            yield Finding(check, "warning", f"not checked: {diagnosis.message}", figures={"kind": diagnosis.kind})

    # The network and the server.

    def _addresses(self) -> Generator[Finding, None, list[ResolvedAddress]]:
        """Return the reachable addresses."""
        where = self.target.address
        try:
            addresses = network.look_up(self.target, self.budget.step_s())
            timeout_s = self.budget.step_s() / min(len(addresses), 2)
            attempts = network.measure_addresses(self.target, addresses, timeout_s)
        except DiagnosisError as error:
            yield _problem("address", error.diagnosis)
            return []
        yield from network.check_addresses(where, attempts)
        yield from self._guarded("proxies", self._proxy)
        return [each.resolved for each in attempts if each.diagnosis is None]

    def _proxy(self) -> Iterable[Finding]:
        where = self.target.address
        proxy = network.proxy_for(where, self.environment)
        seen = None if proxy is None else network.measure_proxy(self.target, *proxy, self.budget.step_s())
        return [network.check_proxy(where, seen)]

    def _identity(self, addresses: Sequence[ResolvedAddress]) -> Generator[Finding, None, identity.Identity | None]:
        """Return the server's identity; None if it is not the gateway."""
        try:
            if self.target.address.secure:
                yield network.check_tls(network.measure_tls(self.target, self.budget.step_s()))
            found = identity.measure_identity(self.target, self.budget.step_s())
        except EXPECTED as error:
            yield self._no_response(error, addresses[0])
            return None
        finding = identity.check_identity(self.target.address, found)
        yield finding
        return found if finding.level == "ok" else None

    def _no_response(self, error: Exception, resolved: ResolvedAddress) -> Finding:
        """Explain why there was no valid response."""
        where = self.target.address
        diagnosis = diagnose_exception(error, where)
        unclear = diagnosis.kind in {"closed", "no_http", "timeout", "unreachable", "broken_off"}
        if not where.secure and unclear and network.speaks_tls(self.target, resolved, STEP_S):
            diagnosis = tls_diagnosis(where)
        if diagnosis.kind == "plain_http":
            diagnosis = attrs.evolve(diagnosis, remedy=self._try_plain_http(diagnosis.remedy))
        return _problem("tls" if where.secure else "gateway", diagnosis)

    def _try_plain_http(self, remedy: str) -> str:
        try:
            get(network.without_tls(self.target), "/health/live", timeout_s=STEP_S)
        except EXPECTED:
            return remedy
        return remedy.replace("It probably speaks", "It speaks")

    # What needs no engine.

    def _model(self, found: identity.Identity) -> Generator[Finding, None, str | None]:
        """Return the name of the model to ask, if any."""
        names, wanted = identity.listed(found.models), self.options.model
        name = wanted or f"{next(iter(names), '')}:latest"
        path = f"/v1/models/{quote(name, safe='/:@+')}"
        try:
            known = get(self.target, path, timeout_s=self.budget.step_s()).ok
        except EXPECTED as error:
            yield _problem("model", diagnose_exception(error, self.target.address))
            return None
        yield identity.check_model(names, wanted, known=known)
        # If the name is wrong, the listed one still allows all other checks.
        return wanted if wanted and known else next(iter(names), None)

    def _round_trip(self) -> Iterable[Finding]:
        return http_checks.check_round_trip(http_checks.measure_round_trip(self.target, self.budget.step_s()))

    def _large_body(self) -> Iterable[Finding]:
        try:
            response = http_checks.measure_large_body(self.target, self.budget.step_s())
        except ConnectionError:
            response = None
        return [http_checks.check_large_body(response, self.target.address)]

    def _preflight(self) -> Iterable[Finding]:
        origin = self.options.origin
        seen, unknown = (
            http_checks.measure_preflight(self.target, each, self.budget.step_s())
            for each in (origin or http_checks.DEFAULT_ORIGIN, http_checks.UNKNOWN_ORIGIN)
        )
        return [http_checks.check_preflight(seen, unknown, requested=origin is not None)]

    def _unknown_host(self) -> Iterable[Finding]:
        response = http_checks.measure_unknown_host(self.target, self.budget.step_s())
        return [http_checks.check_unknown_host(response, self.target.address)]

    def _mismatches(self, processes: int) -> Iterable[Finding]:
        found = mismatches.measure_report(self.target, processes, self.budget.step_s())
        return mismatches.check_mismatches(found, has_key=mismatches.has_key(self.target))

    # What needs the engine, or patience.

    def _ask_engine(self, model: str, processes: int) -> Iterator[Finding]:
        question = self.options.question or QUESTION
        questions = EngineQuestions(self.target, self.budget, model, question, self.options.metrics, processes)
        idle_findings: list[Finding] = []
        thread = start_thread(lambda: idle_findings.extend(self._guarded("idle", self._idle)))
        yield from questions.findings()
        self.questions = questions.asked
        thread.join(self.budget.remaining_s)
        yield from idle_findings

    def _idle(self) -> Iterable[Finding]:
        if self.budget.patience_s is None:
            return []
        wait_s = min(idle.MAX_IDLE_S, self.budget.patience_s)
        return [idle.check_idle(idle.measure_idle(self.target, wait_s), wait_s)]


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
        summarise = report.as_json if options.json else report.summary
        write(summarise(root, findings, run.questions, run.budget.elapsed_s))
    except KeyboardInterrupt:
        print_err("\nbrunix doctor: stopped")
        return INTERRUPTED
    return exit_status(findings)
