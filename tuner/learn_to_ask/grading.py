"""The former place of core/grading.py, for code that imports it from here; goes with version 0.3."""

import sys

from tuner.learn_to_ask.core import grading

sys.modules[__name__] = grading
