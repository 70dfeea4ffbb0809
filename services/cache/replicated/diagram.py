"""The transition table as documentation: a Markdown table and a Mermaid state diagram, made from `TRANSITIONS`.

    python -m services.cache.replicated.diagram
"""

from services.cache.replicated.directory import STATES, TRANSITIONS, Event

BEGIN = "<!-- begin of what services/cache/replicated/diagram.py prints -->\n"
END = "<!-- end of what services/cache/replicated/diagram.py prints -->\n"


def table() -> str:
    """One row per event, one column per state; a pair that cannot occur is empty."""
    rows = ["| event | " + " | ".join(STATES) + " |", "|---" * (len(STATES) + 1) + "|"]
    for event in Event:
        cells = [TRANSITIONS.get((state, event), "") for state in STATES]
        rows.append(f"| {event.value} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def diagram() -> str:
    """Every transition that changes the state, as Mermaid draws it; several events share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, event), after in TRANSITIONS.items():
        if before != after:
            arrows.setdefault((before, after), []).append(event.value)
    lines = [f"    {a} --> {b}: {' / '.join(events)}" for (a, b), events in sorted(arrows.items())]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> I", *lines, "```"]) + "\n"


def document() -> str:
    """What docs/coherence.md holds between its marks."""
    return f"\n{table()}\n{diagram()}\n"


if __name__ == "__main__":
    print(document())
