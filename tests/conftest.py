"""What holds for all tests."""

from hypothesis import settings

# computers that run tests are busy ones: how long an example takes says nothing
settings.register_profile("zseal", deadline=None)
settings.load_profile("zseal")
