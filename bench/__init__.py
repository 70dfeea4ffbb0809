"""Benchmarks. Each compares with a floor or a peer in the same run: shared machines give no other figures."""
