"""Verbs: load, observe, plan, execute, remember, render, and the command line."""
