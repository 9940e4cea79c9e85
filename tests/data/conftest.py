"""Property tests are not timed: machines differ, and other work runs beside them."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
