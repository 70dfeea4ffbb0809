"""Real clusters under real faults. Each module is a command with a verdict, not part of the test run: see the
Makefile."""
