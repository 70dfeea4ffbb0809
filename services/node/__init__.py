"""One node, whatever groups it carries: what it tells of itself, what its operator asks of it, its data directory."""
