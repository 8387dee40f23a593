"""Documents: what people write, in pydantic. The only place that knows it."""
