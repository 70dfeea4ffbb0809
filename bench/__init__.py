"""Benchmarks. Each compares with a floor or a peer in the same run: absolute figures say little on shared machines."""
