"""Real clusters under real faults. Each is a command with a verdict, not part of the test run: see the Makefile."""
