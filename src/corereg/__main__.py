"""`python -m corereg`."""

from corereg.cli import main

if __name__ == "__main__":
    main()
