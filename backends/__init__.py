"""Backends: one package or module for each type of place that has instances. Imports `schemas` only."""
