"""Consensus. Knows nothing of locks, queues or caches; imports only `raft.core`, itself and `common`."""
