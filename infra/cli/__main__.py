"""`python -m infra.cli` is `atlas`."""

from infra.cli import main

if __name__ == "__main__":
    main()
