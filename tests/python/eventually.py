"""Waiting for conditions instead of sleeping."""

import time

# Seconds after which something is taken not to happen any more. A busy machine is slow and halts for
# seconds, and nothing that works waits this long, so no test chooses a shorter one.
PATIENCE = 180


def eventually(what, deadline=PATIENCE, message="the condition"):
    """Waits until `what()` is truthy and returns it; fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"{message}: did not happen within {deadline:.0f} s"
        time.sleep(0.02)
