"""``python -m stillroom``."""

from stillroom.cli.app import main

if __name__ == "__main__":
    main()
