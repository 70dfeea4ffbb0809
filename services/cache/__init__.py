"""The cache service: commands (what can be said), machine (what it does), routes (how HTTP says it)."""

#: The group that carries this service.
GROUP = "cache"
