"""The same examples in every run, and no time limit on one: a busy machine is no defect."""

from hypothesis import settings

settings.register_profile("cosanneal", deadline=None, derandomize=True, database=None)
settings.load_profile("cosanneal")
