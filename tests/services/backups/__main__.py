"""See the package."""

from tests.services.backups import main

main()
