"""What holds for every test: how Hypothesis draws, and that an interrupt interrupts."""

import os
import signal

from hypothesis import settings

# A shared machine can stall for seconds, so no example has a deadline; where nobody can follow up
# on a new failure at once, the same examples are drawn every time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# A shell that starts a job in the background makes it ignore SIGINT, and its children too: tests
# that press Ctrl-C in a child would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)
