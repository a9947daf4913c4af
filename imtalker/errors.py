"""The one exception for user mistakes; its message is a sentence that can be shown as is."""


class InputError(ValueError):
    """A file, picture, sound or setting cannot be used. The message says what is wrong, where, and what to do."""
