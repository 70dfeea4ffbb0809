"""The layers of the design, read from the imports; and the few rules of style that a machine can check.

Everything is read with `ast`: nothing is imported, so a wrong import is found where it stands.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("raft", "common", "services")
SERVICES = ("lock", "queue", "cache")

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
#: `function or module: why it may be longer`. Empty is how it should stay.
LONGER: dict[str, str] = {}

#: All that the consensus core may use of the standard library.
CORE_MAY_IMPORT = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "operator",
    "random",
    "typing",
}
#: What a replicated machine must not reach, however indirectly: clocks, chance, the environment, the network.
MACHINES_MUST_NOT_REACH = {
    "aiohttp",
    "asyncio",
    "datetime",
    "os",
    "random",
    "secrets",
    "socket",
    "threading",
    "time",
    "uuid",
}
#: Who besides its own package may import a module: concrete classes are known where things are wired.
KNOWN_ONLY_TO = {
    "raft.core.raft": {"raft"},
    "raft.disk": {"raft", "services.app"},
    "raft.transport": {"raft", "services.app"},
    **{f"services.{name}.replicated.machine": {f"services.{name}", "services.catalogue"} for name in SERVICES},
    **{f"services.{name}.operations": {f"services.{name}", "services.catalogue"} for name in SERVICES},
}
#: What differs from run to run, and the one module that a node has it from (services/node/outside.py).
FROM_OUTSIDE = {
    "common.chance": ("random", "secrets", "uuid", "os.urandom", "os.getrandom"),
    "common.clock": ("time.time", "time.time_ns", "datetime"),
    "common.threads": ("threading", "queue", "_thread"),
}
#: What of it anyone may name: types, and no source.
NO_SOURCE = {"random", "random.Random", "queue", "queue.Empty", "queue.Full"}
#: What runs beside nodes or before them.
NO_PART_OF_A_NODE = ("services.cluster", "services.cli", "services.offline")
#: Packages that `make lint` checks the types of.
TYPED = ("raft", "common", "services")
#: What a checker is told not to look at, and why.
REASONED_IGNORE = re.compile(r"# type: ignore\[[a-z, -]+\]  # \S")



@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text("utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of the modules that it imports; imports that are for type checkers only are left out."""
    found: set[str] = set()
    for node in _outside_type_checking(tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            found.add(node.module or "")
            found.update(name for alias in node.names if (name := f"{node.module}.{alias.name}") in modules())
    return frozenset(found)


def _outside_type_checking(node: ast.AST) -> list[ast.AST]:
    found = [node]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        found.extend(_outside_type_checking(child))
    return found


@cache
def all_imports(module: str) -> frozenset[str]:
    """As `imports`, with those for type checkers: layers hold for them too."""
    found: set[str] = set(imports(module))
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return frozenset(found)


@cache
def known(module: str) -> frozenset[str]:
    """The other modules of ours that it imports anywhere: at its top, in a function, or for type checkers only."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(name if name in modules() else node.module or "" for name in named)
    return frozenset((found & modules().keys()) - {module})


def named_of_others(node: ast.Module) -> set[str]:
    """What it names of the modules that it imports, in full: `os.urandom`, however it was imported."""
    modules_by_name: dict[str, str] = {}
    found: set[str] = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            modules_by_name.update({alias.asname or alias.name: alias.name for alias in each.names})
            found.update(alias.name for alias in each.names)
        elif isinstance(each, ast.ImportFrom):
            found.update(f"{each.module}.{alias.name}" for alias in each.names)
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute):
            module = modules_by_name.get(ast.unparse(each.value))
            if module is not None:
                found.add(f"{module}.{each.attr}")
    return found


def unseeded(node: ast.Module) -> list[int]:
    """Lines on which a `Random` is made that begins by itself."""
    return [
        each.lineno
        for each in ast.walk(node)
        if isinstance(each, ast.Call)
        and ast.unparse(each.func) in ("Random", "random.Random")
        and not each.args
    ]


def ring(graph: dict[str, frozenset[str]]) -> list[str]:
    """Modules that know each other in a ring, the first one again at its end; empty where there is no ring."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def reached(module: str) -> set[str]:
    """Everything that is imported when `module` is, as far as it is ours or imported by ours."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in modules():
            parents = [current.rsplit(".", depth)[0] for depth in range(1, current.count(".") + 1)]
            todo.extend([*imports(current), *parents])
    return seen


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def is_ours(name: str) -> bool:
    return within(name, *PACKAGES, "tests", "bench")


def modules_in(*packages: str) -> list[str]:
    return [module for module in modules() if within(module, *packages)]


def wrong_imports(importers: list[str], is_wrong: Callable[[str], bool]) -> dict[str, set[str]]:
    """What each imports and must not, for those that do."""
    found = {module: {name for name in all_imports(module) if is_wrong(name)} for module in importers}
    return {module: names for module, names in found.items() if names}


def named(pattern: str) -> list[str]:
    """Modules whose file is called so."""
    return [module for module, path in modules().items() if path.name == pattern]


# Layers


def test_the_core_imports_itself_and_a_short_list() -> None:
    """Sans-I/O: no clock, socket, file, task, logger or global random, and nothing of a third party."""
    assert {} == wrong_imports(
        modules_in("raft.core"),
        lambda name: not within(name, "raft.core") and name.split(".")[0] not in CORE_MAY_IMPORT,
    )


@pytest.mark.parametrize("module", modules_in("raft.core"))
def test_the_core_uses_no_chance_but_the_one_it_is_given(module: str) -> None:
    """`random` lends its type only: a generator of the core's own would not be under the simulator's seed."""
    names = [
        alias.name
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module == "random"
        for alias in node.names
    ]
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]

    assert set(names) <= {"Random"}
    assert not {"Random", "open", "print", "input", "hash", "id"} & set(calls)
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree(module)))


def test_consensus_knows_no_service() -> None:
    """raft imports itself and common."""
    assert {} == wrong_imports(
        modules_in("raft"), lambda name: is_ours(name) and not within(name, "raft", "common")
    )


def test_common_is_a_leaf() -> None:
    """It imports nothing of ours but itself."""
    assert {} == wrong_imports(
        modules_in("common"), lambda name: is_ours(name) and not within(name, "common")
    )


def test_no_modules_know_each_other_in_a_ring() -> None:
    """What knows what has an order, types included: a file can be read without those that come behind it. Who needs
    something of a later one says so in a Protocol of its own, or is handed it."""
    assert [] == ring({module: known(module) for module in modules()})


@pytest.mark.parametrize("service", SERVICES)
def test_services_do_not_know_each_other(service: str) -> None:
    """Each could be taken out alone."""
    others = [f"services.{other}" for other in SERVICES if other != service]

    assert {} == wrong_imports(modules_in(f"services.{service}"), lambda name: within(name, *others))


def test_operations_know_no_http() -> None:
    """They could be asked by any way: only services/http, the wiring and the cache's short way know aiohttp."""


    def knows(names: Iterable[str]) -> bool:
        return any(within(name, "aiohttp") for name in names)

    knowing = {module for module in modules_in("services") if knows(imports(module))}

    assert {m for m in knowing if not within(m, "services.http")} == {"services.app", "services.cache.hits"}
    assert not any(knows(reached(module)) for module in modules_in("services.operations"))


def test_machines_core_and_storage_do_not_know_the_web() -> None:
    """Not even through something else that they import."""
    pure = [*named("machine.py"), *named("commands.py"), *modules_in("raft.core", "raft.storage")]

    assert [module for module in pure if any(within(name, "aiohttp") for name in reached(module))] == []


@pytest.mark.parametrize("module", [*named("machine.py"), *named("commands.py")])
def test_machines_reach_no_clock_chance_environment_or_network(module: str) -> None:
    """Apply is a pure function of the log (the design, section 4; known bug 77)."""
    assert {name for name in reached(module) if name.split(".")[0] in MACHINES_MUST_NOT_REACH} == set()


@pytest.mark.parametrize("known", KNOWN_ONLY_TO)
def test_concrete_classes_are_known_where_things_are_wired(known: str) -> None:
    """Protocols sit with their consumer; services/app.py and services/catalogue.py put the pieces together."""
    importers = {
        module
        for module in modules()
        if not within(module, known) and any(within(name, known) for name in imports(module))
    }

    assert {module for module in importers if not within(module, *KNOWN_ONLY_TO[known])} == set()


@pytest.mark.parametrize("door", FROM_OUTSIDE)
def test_what_differs_from_run_to_run_has_one_door(door: str) -> None:
    """A simulation gives a node its chance, its wall clock and its threads: what a module took by itself would not be
    under its seed."""
    sources = FROM_OUTSIDE[door]
    offenders = {}
    for module in modules():
        if module == door or within(module, *NO_PART_OF_A_NODE):
            continue
        taken = {name for name in named_of_others(tree(module)) - NO_SOURCE if within(name, *sources)}
        if taken:
            offenders[module] = taken

    assert offenders == {}
    assert any(within(name, *sources) for name in named_of_others(tree(door)) - NO_SOURCE), "the door is used"


def test_no_generator_of_a_node_begins_by_itself() -> None:
    """`Random()` without a seed asks the system."""
    nodes = [module for module in modules() if not within(module, *NO_PART_OF_A_NODE)]

    assert {module: lines for module in nodes if (lines := unseeded(tree(module)))} == {}


def test_msgpack_has_one_door() -> None:
    """common/wire.py: limits and errors are decided once."""
    users = {module for module in modules() if any(within(name, "msgpack") for name in imports(module))}

    assert users == {"common.wire"}


def test_commands_have_one_way_into_the_log() -> None:
    """services/replicated/proposing.py: what not every member of the group knows is held up there. What raises the
    version that they know goes another way, which is raft's (services/node/versions.py)."""
    proposing = {
        module
        for module in modules_in("services")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and node.attr == "propose"
    }
    encoding = {
        module
        for module in modules_in("services")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and "encode_command" in {alias.name for alias in node.names}
    }

    assert proposing == {"services.replicated.proposing"}
    assert encoding == {"services.replicated.proposing", "services.node.versions"}


def test_nothing_is_unpickled() -> None:
    """Reading a pickle runs code; PySyncObj reads them from the network."""
    dangerous = ("pickle", "marshal", "shelve", "dill")

    assert {m for m in modules() if any(within(name, *dangerous) for name in imports(m))} == set()


def test_tests_and_benchmarks_are_not_imported_by_what_runs() -> None:
    assert {m for m in modules() if any(within(n, "tests", "bench") for n in all_imports(m))} == set()


def test_third_parties_are_declared() -> None:
    """A package that is imported stands in pyproject.toml (docs/dependencies.md says why)."""
    declared = (ROOT / "pyproject.toml").read_text("utf-8").replace("-", "_")
    #: aiohttp brings it along, and its headers are made of it.
    brought_along = {"multidict", "yarl"}

    used = {name.split(".")[0] for module in modules() for name in imports(module)}
    foreign = used - set(PACKAGES) - sys.stdlib_module_names - brought_along

    assert {name for name in foreign if f'"{name}' not in declared} == set()


# State has one owner


@pytest.mark.parametrize(
    ("attributes", "owner", "of"),
    [
        ({"role", "term", "vote", "leader"}, "raft.core.state", "state"),
        ({"match_index", "next_index", "probe_sent", "snapshot_index"}, "raft.core.progress", "progress"),
    ],
    ids=["role, term, vote and leader", "progress"],
)
def test_state_is_assigned_by_its_owner_alone(attributes: set[str], owner: str, of: str) -> None:
    """Whoever looks for the reason of a change has one file to read."""
    offenders = []
    for module in modules():
        if not within(module, "raft") or module == owner:
            continue
        for node in ast.walk(tree(module)):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            offenders.extend(
                f"{module}:{target.lineno}"
                for target in targets
                if isinstance(target, ast.Attribute)
                and target.attr in attributes
                and ast.unparse(target.value).endswith(of)
            )

    assert offenders == []


# Size and manners


def functions(module: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_modules_and_functions_stay_readable() -> None:
    """At most 500 lines to a module and 70 to a function; an exception stands in `LONGER` with its reason."""
    too_long = {}
    for module, path in modules().items():
        lines = len(path.read_text("utf-8").splitlines())
        if lines > MODULE_LINES_MAX:
            too_long[module] = lines
        for function in functions(module):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                too_long[f"{module}.{function.name}"] = lines

    assert {name: lines for name, lines in too_long.items() if name not in LONGER} == {}
    assert set(LONGER) <= set(too_long), "an exception that is not needed any more"


def test_no_error_is_swallowed_unseen() -> None:
    """No bare `except`, and no catching of everything only to pass on."""
    offenders = [
        f"{module}:{node.lineno}"
        for module in modules()
        for node in ast.walk(tree(module))
        if _swallows(node)
    ]

    assert offenders == []


def _swallows(node: ast.AST) -> bool:
    everything = {"Exception", "BaseException"}
    if isinstance(node, ast.ExceptHandler):
        silent = all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
        return node.type is None or (silent and ast.unparse(node.type) in everything)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return bool({ast.unparse(argument) for argument in node.args} & everything)
    return False


def test_every_module_says_what_lives_in_it() -> None:
    silent = [m for m, path in modules().items() if path.stat().st_size and not ast.get_docstring(tree(m))]

    assert silent == []


def test_a_type_is_left_unchecked_for_one_error_and_with_a_reason() -> None:
    """`# type: ignore[code]  # why`: without a code it would hide the next mistake on its line as well."""
    offenders = [
        f"{module}:{number}"
        for module in modules_in(*TYPED)
        for number, line in enumerate(modules()[module].read_text("utf-8").splitlines(), 1)
        if "type: ignore" in line and not REASONED_IGNORE.search(line)
    ]

    assert offenders == []


def test_assertions_are_never_switched_off() -> None:
    """Asserts guard the log: nothing of ours starts Python with -O."""
    places = [ROOT / "Makefile", *(ROOT / "docker").rglob("*"), *(ROOT / ".ci").rglob("*")]

    for path in (place for place in places if place.is_file()):
        text = path.read_text("utf-8")
        assert "PYTHONOPTIMIZE" not in text and "python -O" not in text, path


# The checks themselves


def test_the_checks_see_what_they_look_for() -> None:
    """A check that finds nothing anywhere may be blind: each is shown one offender."""
    swallowing = ast.parse("try:\n    x()\nexcept Exception:\n    pass")
    handling = ast.parse("try:\n    x()\nexcept OSError:\n    pass")

    assert any(_swallows(node) for node in ast.walk(swallowing))
    assert not any(_swallows(node) for node in ast.walk(handling))
    assert REASONED_IGNORE.search("x = 1  # type: ignore[assignment]  # the reason")
    assert not REASONED_IGNORE.search("x = 1  # type: ignore  # the reason")
    assert not REASONED_IGNORE.search("x = 1  # type: ignore[assignment]")
    assert within("raft.core.raft", "raft.core") and not within("raft.corex", "raft.core")
    assert "aiohttp" in reached("services.app")
    assert "time" in reached("common.clock")
    assert "os.urandom" in named_of_others(ast.parse("import os as o\no.urandom(1)"))
    assert "secrets.token_hex" in named_of_others(ast.parse("from secrets import token_hex as name"))
    assert unseeded(ast.parse("a = Random(1)\nb = Random()")) == [2]
    assert ring({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("b")})[1:] in (["c", "b"], ["b", "c"])
    assert ring({"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}) == []
    assert {"raft.core.replication", "raft.core.server"} <= known("raft.core.raft")
    assert wrong_imports(["services.app"], lambda name: name == "aiohttp") == {"services.app": {"aiohttp"}}
