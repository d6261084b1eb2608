"""What holds for all tests."""

import signal
from types import FrameType

from hypothesis import settings


def _stay(_number: int, _frame: FrameType | None) -> None:
    """Do nothing, as if the signal were ignored."""


# Under nohup, and in a script's background jobs, signals are ignored, which every program that a test starts would
# inherit: none of them could be ended by a signal. A signal that is caught is back at its default in a new program.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _stay)

# computers that run tests are busy ones: how long an example takes says nothing
settings.register_profile("zseal", deadline=None)
settings.load_profile("zseal")
