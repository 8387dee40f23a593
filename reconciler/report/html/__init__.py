"""The page of `dstack report --html`."""
