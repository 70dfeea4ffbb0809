"""Benchmarks. Each compares with a floor or a peer in the same run: absolute figures mean little on shared machines."""
