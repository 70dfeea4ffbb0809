"""What a node keeps for its own clients: the consumers that wait at it. Nothing in here is replicated."""
