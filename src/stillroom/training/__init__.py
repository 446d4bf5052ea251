"""One loop fits every network; what it is fed, how fast it learns, which weights it ends with."""
