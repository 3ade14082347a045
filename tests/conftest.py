"""What holds for every test."""

from hypothesis import settings

# A busy machine makes an example slow; the time limit of the test is there for what hangs.
settings.register_profile("sage", deadline=None)
settings.load_profile("sage")
