"""Every setting: the sections, and the whole run of them."""
