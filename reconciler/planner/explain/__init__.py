"""Explain a run, an instance, a pool or an offer by the plan's own matcher. Pure."""
