"""The command: `python -m tests.sim.check HISTORY [--model register|lock|queue]`.

Prints `linearizable` (exit 0), or `not linearizable` with the offending part as lines of a history (exit 1). Exit 2:
the history or the command line is malformed; exit 3: undecided; both say why on stderr and print nothing.
"""

import argparse
import sys
from collections.abc import Sequence

from tests.sim.check import HistoryError, Operation, Undecided, Verdict, check_history, parse_history
from tests.sim.check.history import MODELS, infer_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim.check",
        description="Decides whether a history of operations is linearizable. Exit: 0 yes, 1 no, 2 bad input, "
        "3 undecided.",
    )
    parser.add_argument("history", metavar="HISTORY", help="JSON lines, one operation each; - for stdin")
    parser.add_argument("--model", choices=MODELS, help="what the keys are; else the first operation tells")
    options = parser.parse_args(arguments)
    try:
        operations = _read(options.history)
        model = options.model or infer_model(operations)
        verdict = check_history(operations, model)
    except (HistoryError, OSError, UnicodeDecodeError) as error:
        print(f"{options.history}: {error}", file=sys.stderr)
        return 2
    except Undecided as error:
        print(f"undecided: {error}", file=sys.stderr)
        return 3
    if verdict.linearizable:
        print("linearizable")
        return 0
    _print_offending(verdict, model)
    return 1


def _read(path: str) -> list[Operation]:
    if path == "-":
        return parse_history(sys.stdin)
    with open(path, encoding="utf-8-sig") as file:
        return parse_history(file)


def _print_offending(verdict: Verdict, model: str) -> None:
    part = sorted(verdict.offending + verdict.sources, key=lambda operation: operation.call)
    print("not linearizable")
    print(
        f"{model} {part[0].key!r}: these {len(part)} have no legal order, whatever became of the rest",
        file=sys.stderr,
        flush=True,
    )
    for operation in part:
        print(operation.to_json())


if __name__ == "__main__":
    sys.exit(main())
