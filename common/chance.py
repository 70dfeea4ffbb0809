"""The chance of a process: names that nobody else has, and numbers that no earlier process had.

The rule of the file: who needs chance is given a `Random`, and this is the only one of ours. So a simulation can give
a whole node one that begins with its seed.
"""

from random import Random, SystemRandom

#: What the system gives; whoever is given no other one uses it.
SYSTEM_RANDOM: Random = SystemRandom()
