"""Property tests are the same in every run, have no deadline and leave no folder behind."""

from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("suite")
