"""`invsolve` and `python -m invsolve`."""

from invsolve.cli import main

if __name__ == "__main__":
    main()
