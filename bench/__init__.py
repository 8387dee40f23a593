"""Measurements: CPU seconds of the commands beside bare Python, and of the planner as it grows."""
