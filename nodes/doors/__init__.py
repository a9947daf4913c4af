"""The doors: what a link of each type may carry, checked once and brought to the engine's form.

`nodes/types.py` takes every input of every node through the door of its type. A door returns what the engine works on,
or raises an InputError that names the input. None of this needs ComfyUI.
"""
