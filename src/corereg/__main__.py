"""`python -m corereg`."""

from corereg.cli import run

if __name__ == "__main__":
    run()
