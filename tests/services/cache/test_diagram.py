"""The documentation of the protocol shows the table that the code looks states up in."""

from pathlib import Path

from services.cache.replicated.diagram import BEGIN, END, document

PAGE = Path(__file__).parents[3] / "docs" / "coherence.md"


def test_the_page_holds_what_the_table_says() -> None:
    """To mend it: python -m services.cache.replicated.diagram, and put the output between the marks."""
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]

    assert document() == shown
