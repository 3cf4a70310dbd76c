"""Settings that every test shares.

A busy machine must not fail a property test, and CI must find what it found the time before.
"""

import os

from hypothesis import settings

settings.register_profile("developer", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")
