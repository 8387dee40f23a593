"""The `dstack` command. Each command is a thin function; its body lies in its own module, imported when it runs."""
