"""What every test of the workspace shares."""

from hypothesis import settings

# Seeds are fixed, and a busy machine is no failure.
settings.register_profile("boardwright", deadline=None, derandomize=True)
settings.load_profile("boardwright")
