"""Planted bugs: one-line changes of the core, or of the driver and disk below it, each taken from a bug that another
Raft system shipped. They prove that the simulator finds bugs.

The production code has no switches. A bug names a function, a piece of its source and the text that replaces it. To
plant it, we compile the changed source and swap the function's code object in this process, so that every reference
to the function has the bug; to take it out again, we swap it back. A piece that is no longer in the source, or is
there more than once, is an error: the table cannot become wrong silently.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from textwrap import dedent
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug."""

    name: str
    #: Numbers in the list of known bugs of other systems; empty for one found in this code.
    known: tuple[int, ...]
    #: `module:qualified name` of the function.
    where: str
    old: str
    new: str


def load_bugs() -> dict[str, Bug]:
    """Every planted bug by name, in the order of files and tables."""
    return load_tables(__name__, __path__, "BUGS")


def load_tables(package: str, path: Iterable[str], table: str) -> dict[str, Any]:
    """What the modules of a package have in their lists of that name, by `name`."""
    bugs: dict[str, Any] = {}
    for module_info in sorted(iter_modules(path), key=lambda info: info.name):
        for bug in getattr(import_module(f"{package}.{module_info.name}"), table):
            assert bug.name not in bugs, f"two bugs are called {bug.name}"
            bugs[bug.name] = bug
    return bugs


#: A function without its decorators.
_BEGINNING = re.compile(r"^(async )?def ", re.MULTILINE)
#: Compiled changes by bug: made once, before workers are forked.
_COMPILED: dict[str, CodeType] = {}


def compile_bug(bug: Bug) -> CodeType:
    """The function's code with the bug in it."""
    if bug.name not in _COMPILED:
        _COMPILED[bug.name] = _changed_code(bug, _function(bug))
    return _COMPILED[bug.name]


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """The bug is in the code while this is entered."""
    code = compile_bug(bug)
    function = _function(bug)
    sound = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = sound


def _function(bug: Bug) -> FunctionType:
    module, _, path = bug.where.partition(":")
    found = import_module(module)
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    assert isinstance(found, FunctionType), f"{bug.name}: {bug.where} is no function"
    return found


def _changed_code(bug: Bug, function: FunctionType) -> CodeType:
    source = dedent(inspect.getsource(function))
    source = source[_BEGINNING.search(source).start() :]
    assert source.count(bug.old) == 1, (
        f"{bug.name}: {bug.old!r} stands {source.count(bug.old)} times in {bug.where}"
    )
    made: dict = {}
    changed = "from __future__ import annotations\n" + source.replace(bug.old, bug.new)
    exec(compile(changed, f"<planted {bug.name}>", "exec"), function.__globals__, made)
    code = made[function.__name__].__code__
    assert code.co_freevars == function.__code__.co_freevars, f"{bug.name}: the change needs a closure"
    return code
