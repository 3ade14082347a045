"""What holds for every test."""

import logging

import pytest
from hypothesis import settings

# A busy machine makes an example slow; the time limit of the test is there for what hangs.
settings.register_profile("sage", deadline=None)
settings.load_profile("sage")


@pytest.fixture(autouse=True)
def no_handler_of_beam_stays():
    """A Python worker in this process hangs Beam's log handler on the root logger and leaves it.

    Nobody reads its queue once the job has ended: the 10,000th line that anything logs then waits
    for ever.
    """
    yield
    for handler in list(logging.getLogger().handlers):
        if type(handler).__module__.startswith("apache_beam"):
            logging.getLogger().removeHandler(handler)
