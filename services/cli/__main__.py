"""`python -m services.cli`: the program without its script."""

from services.cli.entry import main

main()
