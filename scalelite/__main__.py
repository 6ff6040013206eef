"""`python -m scalelite` is the command `scalelite`."""

from scalelite.cli import main

if __name__ == "__main__":
    main()
