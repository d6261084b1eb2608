"""What holds for all tests."""

import signal

from hypothesis import settings

# a shell starts jobs in the background with interrupts ignored, which programs that tests start would inherit
signal.signal(signal.SIGINT, signal.default_int_handler)

# computers that run tests are busy ones: how long an example takes says nothing
settings.register_profile("zseal", deadline=None)
settings.load_profile("zseal")
