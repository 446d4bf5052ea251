"""A run: its folder, the workbench that recipes work at, and the way from images to report."""
