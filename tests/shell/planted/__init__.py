"""Planted bugs of the shell: small changes of what surrounds the core, most of them bugs that this project had. They
prove that the simulation finds bugs. See `tests.sim.planted`, which has the way to plant one."""

from dataclasses import dataclass

from tests.sim.planted import Bug, load_tables


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug in one place or several."""

    name: str
    #: What goes wrong with it.
    does: str
    #: In which group seeds look for it.
    group: str
    #: `(module:qualified name, old, new)` of each change.
    changes: tuple[tuple[str, str, str], ...]

    @property
    def bugs(self) -> tuple[Bug, ...]:
        return tuple(
            Bug(f"{self.name} {number}", (), *_as_function(*change)) for number, change in enumerate(self.changes)
        )


def _as_function(where: str, old: str, new: str) -> tuple[str, str, str]:
    """Texts as they stand in the file, as they stand in the source of a function by itself."""
    if "." not in where.partition(":")[2]:
        return where, old, new
    return where, _out_of_class(old), _out_of_class(new)


def _out_of_class(text: str) -> str:
    return "".join(line[4:] if line.startswith("    ") else line for line in text.splitlines(keepends=True))


def load_planted() -> dict[str, Planted]:
    """Every planted bug by name, in the order of files and tables."""
    return load_tables(__name__, __path__, "PLANTED")
