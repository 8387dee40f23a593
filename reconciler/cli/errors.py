"""Turn known errors into one line that names the file, the field or the next command."""

from __future__ import annotations


def explain_error(error: Exception) -> str:
    """The line for `error`, or "" for a defect. Imports here cost nothing: something already failed."""
    from backends.errors import CallFailed
    from reconciler.config.load import Invalid
    from reconciler.state.errors import StateMoved, StateRefused

    match error:
        case Invalid():
            lines = [str(problem) for problem in error.problems]
            return "\n".join([f"the documents are not valid ({len(lines)}):", *lines])
        case StateRefused():
            return str(error)
        case StateMoved():
            return "the state was written by others again and again; run the command once more"
        case CallFailed():
            return f"the place said: {error}"
        case OSError():
            return _system(error)
    return _by_name(error)


def _system(error: OSError) -> str:
    about = error.filename2 or error.filename  # of a file that takes another's place, the other is the one they know
    where = f"{about}: " if about else ""
    hint = "; check who owns it and its mode" if isinstance(error, PermissionError) else ""
    return f"{where}{error.strerror or error}{hint}"


def _by_name(error: Exception) -> str:
    """Those whose modules need not be loaded to tell them."""
    if type(error).__name__ in (
        "BadOption",
        "BlobError",
        "HostError",
        "Fenced",
        "Unreachable",
        "KeyRefused",
        "TickRefused",
        "WishRefused",
        "SecretLacking",
        "RebuildRefused",
    ):
        return str(error)
    return ""
