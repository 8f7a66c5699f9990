"""What every test of the workspace shares."""

from hypothesis import HealthCheck, settings

# Seeds are fixed, and a busy machine is no failure.
settings.register_profile(
    "boardwright", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("boardwright")
