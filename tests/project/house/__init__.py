"""The rules of the house, read off the files of src/ and tests/ without importing any of them.

`python -m tests.project.house src/cosanneal` prints what breaks them; names of checks after the
folder (`circles reaches`) look at those alone. Each check is a file with a function `found`; its
cases stand in tests/project/test_NAME.py, and test_house.py holds this repository to all of them.
"""
