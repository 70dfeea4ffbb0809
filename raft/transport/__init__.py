"""How messages travel between the nodes of a group."""
