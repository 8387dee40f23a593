"""The reconciler, in wings: each folder has a README that says what enters and what leaves."""
