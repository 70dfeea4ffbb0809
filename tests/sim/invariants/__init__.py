"""The promises that hold after every event: one file each, named for the promise, tagged with the paper's section.

A check looks at what changed (see tests/sim/observer.py), so that all of them together cost less than the events.
"""

from importlib import import_module
from pkgutil import iter_modules

from tests.sim.observer import Observer


def load_invariants() -> list[type[Observer]]:
    """Every invariant, in the order of their file names."""
    found: list[type[Observer]] = []
    for module_info in sorted(iter_modules(__path__), key=lambda info: info.name):
        module = import_module(f"{__name__}.{module_info.name}")
        watchers = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Observer) and value.__module__ == module.__name__
        ]
        assert len(watchers) == 1, f"{module_info.name}: one invariant a file"
        assert watchers[0].section, f"{module_info.name}: name the section"
        found.extend(watchers)
    return found
