"""The applications on top of Raft, and the process that hosts them."""
