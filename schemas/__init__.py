"""Nouns: the values that cross a process boundary. No I/O, no clock, no vendor."""
