"""What holds for all tests: a slow or paused machine is no failure."""

from hypothesis import HealthCheck, settings

# By default hypothesis fails a test of which one example took 200 ms, or whose examples took a second to be made:
# a machine that stands still for a moment does both.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
