"""Rare situations: watchers that only count, so that a campaign can prove that it has been there."""

from importlib import import_module
from pkgutil import iter_modules

from tests.sim.observer import Observer


def load_situations() -> list[type[Observer]]:
    found: list[type[Observer]] = []
    for module_info in sorted(iter_modules(__path__), key=lambda info: info.name):
        module = import_module(f"{__name__}.{module_info.name}")
        found.extend(
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Observer) and value.__module__ == module.__name__
        )
    return found
