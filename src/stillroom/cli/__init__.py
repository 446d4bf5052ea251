"""The command line: its verbs, their help, and what a terminal shows."""
