"""Places: one file per place that has instances. Knows `schemas` only."""
