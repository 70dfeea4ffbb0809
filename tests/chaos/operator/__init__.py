"""A random operator: real `mufakat` commands in a random order, while clients write. `__main__` runs it."""
