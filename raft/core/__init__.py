"""The Raft protocol without I/O: no clock, socket, file, task, logger or global random."""
