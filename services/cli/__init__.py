"""The `mufakat` command."""
