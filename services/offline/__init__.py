"""Work on the data directories of nodes that do not run: reading a disk, a restore, a recovery."""
