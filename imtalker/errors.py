"""The one exception for user mistakes; its message is a sentence that can be shown as is."""


class InputError(ValueError):
    """A file, image, audio clip or setting cannot be used; the message says what is wrong, where, and what to do."""
