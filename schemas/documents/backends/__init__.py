"""The forms of the backends: a module for each type."""
