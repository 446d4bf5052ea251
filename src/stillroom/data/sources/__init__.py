"""Where images and labels come from. Each source is one function that returns a :class:`stillroom.data.table.Table`."""
