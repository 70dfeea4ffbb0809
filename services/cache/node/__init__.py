"""What a node keeps for itself: lines that it may serve, who fills, who watches. Nothing in here is replicated."""
