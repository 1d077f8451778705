"""The two ways a command ends badly."""


class UserError(Exception):
    """A mistake of the user's: one sentence that names the file or key and says what to do. Exit status 2."""


class RunFailed(Exception):
    """A run that ended without a result, after its record was written. Exit status 1."""
