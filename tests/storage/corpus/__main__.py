"""Write the corpus of the present format version."""

from tests.storage.corpus import main

main()
