"""
How fast is the gateway, beside the design it replaces and a gateway people use instead? ``make bench``.

Starts everything that it needs, each in a process of its own on a free port, and ends it again. The variants are
measured in turns, in an order that differs from round to round, so that what else the machine does meanwhile hits all
of them; what is compared are the figures of the same round. A few seconds show one thing alone:

    .venv-bench/bin/python benchmarks/bench.py --only paced-500 --variants gateway,A,A+ --rounds 3
    … --variants gateway,gateway@/path/to/another/checkout,gateway+PROXY_BUFFER_BYTES=4096

A ``'`` after a name is the same variant once more, in a process of its own: gateway,gateway'.
"""

from __future__ import annotations

import argparse
import random
import re
import shlex
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

import pages
import plots
import report
from measure import Bench, Figures
from results import FOLDER, Machine, Results
from servers import ROOT, Fleet, ServerError
from variants import Variant, VariantError, variant
from workloads import FORMS, Workload, pick, plan

MAKE = {"quick": "make bench", "full": "make bench-full"}
# A server answers for so many rounds; then another takes its place.
ROUNDS_A_SERVER = 5


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    about, _, _ = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=about, epilog=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--form", choices=FORMS, default="quick", help="about 3 minutes, or about 30")
    parser.add_argument("--only", default="", help="workloads, separated by commas; see --list")
    parser.add_argument("--variants", default="", help="in place of each workload's own, separated by commas")
    parser.add_argument("--rounds", type=int, help="in place of each workload's own number")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=value", help="a setting of every gateway")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="take every gateway from another checkout")
    parser.add_argument("--gateway-python", default=sys.executable, help="the Python of the gateway's environment")
    parser.add_argument("--write-docs", action="store_true", help="put the figures into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="show the workloads and end")
    arguments = parser.parse_args()
    try:
        arguments.workloads = pick(arguments.form, list(filter(None, arguments.only.split(","))))
    except KeyError as fault:
        parser.error(f"no workload is called {fault}; there are {', '.join(plan('full'))}")
    changed = (arguments.only, arguments.variants, arguments.rounds, arguments.env, arguments.checkout != ROOT)
    arguments.whole = not any(changed)
    if arguments.write_docs and not arguments.whole:
        parser.error("--write-docs takes all of a form")
    if not all("=" in each for each in arguments.env):
        parser.error("--env takes NAME=value")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds takes a number from 1")
    return arguments


def chosen(workload: Workload, arguments: argparse.Namespace) -> list[Variant]:
    """The variants that a workload is measured on; says which are left out, and why."""
    more = tuple((name, value) for name, _, value in (each.partition("=") for each in arguments.env))
    names = list(filter(None, arguments.variants.split(","))) or workload.variants
    found = []
    for name in names:
        each = variant(name, arguments.gateway_python, arguments.checkout.resolve(), more)
        if obstacle := each.obstacle(workload):
            print(f"{workload.name}: without {each.name}: {obstacle}", flush=True)
        else:
            found.append(each)
    if len({each.name for each in found}) < len(found):
        raise VariantError("a variant is named twice; write the second with a ' after it")
    return found


def run(bench: Bench, workload: Workload, variants: list[Variant]) -> dict[str, list[Figures]]:
    """Measure one workload on every variant, round by round. One that fails is left out from then on."""
    seen: dict[str, list[Figures]] = {each.name: [] for each in variants}
    dice = random.Random(workload.name)  # noqa: S311 - the order is only to differ
    try:
        for number_of_round in range(workload.rounds):
            if number_of_round % ROUNDS_A_SERVER == 0:
                bench.drop()
            order = variants[:]
            dice.shuffle(order)
            for each in order:
                try:
                    seen[each.name].append(bench.measure(each, workload))
                except ServerError as fault:
                    print(f"{workload.name}: from now on without {each.name}: {fault}", flush=True)
                    variants = [other for other in variants if other is not each]
                    bench.check()
    finally:
        bench.drop()
    return seen


def main() -> int:
    """Run it."""
    arguments = read_arguments()
    if arguments.list:
        for each in arguments.workloads:
            print(f"{each.name:<22} {each.rounds:>2} rounds  {each.title}: {', '.join(each.variants)}")
        return 0
    machine = Machine.here()
    print(
        f"{arguments.form} form; {machine.cpu}, {machine.cores} cores, {machine.system}, Python {machine.python}, "
        f"load average {machine.load_average:.2f}",
        flush=True,
    )
    began_s = time.monotonic()
    seen: dict[str, dict[str, list[Figures]]] = {}
    with TemporaryDirectory() as folder, Fleet(Path(folder)) as fleet:
        bench = Bench.start(fleet, Path(folder))
        for workload in arguments.workloads:
            if variants := chosen(workload, arguments):
                planned = attrs.evolve(workload, rounds=arguments.rounds or workload.rounds)
                workload_s = time.monotonic()
                seen[workload.name] = run(bench, planned, variants)
                report.show(workload, seen, time.monotonic() - workload_s)
                sys.stdout.flush()
    tell(arguments, machine, seen, time.monotonic() - began_s)
    return 0 if all(len(set(map(len, each.values()))) == 1 for each in seen.values()) else 1


def tell(
    arguments: argparse.Namespace, machine: Machine, seen: dict[str, dict[str, list[Figures]]], elapsed_s: float
) -> None:
    """Print the table, and write the file, the pictures and the page."""
    form = arguments.form if arguments.whole else "selection"
    rows = report.rows(seen)
    proof, noise = report.proof(seen), report.noise(seen, arguments.workloads)
    measured = [row for row in rows if arguments.whole or row.measured != "–"]
    told = [*report.table(measured), ""] if measured else []
    print("\n" + "\n".join([*told, *noise, *proof]))
    # A path of this machine tells nobody anything.
    words = ["python", "benchmarks/bench.py", *(re.sub(r"/[^,+]*/", "", word) for word in sys.argv[1:])]
    command = MAKE[form] if arguments.whole else shlex.join(words)
    results = Results(
        form,
        command,
        machine,
        tuple(arguments.workloads),
        seen,
        tuple(rows),
        tuple(proof),
        tuple(noise),
        elapsed_s,
    )
    written = [results.write(), *plots.draw(seen, form, FOLDER)]
    if arguments.write_docs:
        figures = {each.name: each.shown for each in arguments.workloads}
        text = pages.measured(results.document(), figures, written[1:])
        pages.PAGE.write_text(pages.put(pages.PAGE.read_text("utf-8"), text), "utf-8")
        written.append(pages.PAGE)
    print(f"{elapsed_s:.0f} s; written: {', '.join(str(path.relative_to(ROOT)) for path in written)}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ServerError, VariantError) as fault:
        sys.exit(str(fault))
    except KeyboardInterrupt:
        sys.exit(130)
