"""`python -m cosanneal`: the same as the command `cosanneal`."""

from .cli import main

if __name__ == "__main__":
    main()
