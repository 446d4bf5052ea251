"""``python -m stillroom``, and what the command ``stillroom`` runs."""

from __future__ import annotations

import sys

from stillroom.cli.stopping import die_quietly, exit_code, heed


def main() -> None:
    """The command line; also while it is imported, which takes a second, a Ctrl-C is one line."""
    heed()
    try:
        from stillroom.cli.app import main as command_line

        command_line()
    except KeyboardInterrupt as stop:  # before there was anything that could say more
        print("error: Stopped.", file=sys.stderr, flush=True)
        sys.exit(exit_code(stop))
    finally:
        die_quietly()


if __name__ == "__main__":
    main()
