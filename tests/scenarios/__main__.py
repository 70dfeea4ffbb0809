"""`python -m tests.scenarios [--rewrite] FILE...`: what the commands of scenario files do now."""

import sys
from pathlib import Path

from tests.scenarios.runner import rewrite


def main(arguments: list[str]) -> None:
    for name in arguments:
        if name == "--rewrite":
            continue
        path = Path(name)
        text = rewrite(path)
        if "--rewrite" in arguments:
            path.write_text(text, "utf-8")
        else:
            print(text, end="")


if __name__ == "__main__":
    main(sys.argv[1:])
