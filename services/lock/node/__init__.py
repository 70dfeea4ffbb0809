"""What a node keeps for its own clients: the requests that wait at it. Nothing in here is replicated."""
