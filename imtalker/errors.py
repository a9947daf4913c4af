"""The one error a person caused and can mend: its text is a whole sentence to show them as it is."""


class InputError(ValueError):
    """A file, picture, sound or setting cannot be used; the message says what is wrong, where, and what to do."""
