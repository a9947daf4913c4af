"""Dubbing: a video that exists says new words.

Every frame is its own source. Its face is cropped and encoded, the mouth's part of its own motion is replaced by what
the speech wants, and the lower face of the rendered picture is pasted back under a soft mask. All else of the frame
stays as it was.

A first pass over the clip (plan.py, shots.py) says for every frame where the face is, or why the frame is left alone;
a second one (redraw.py) makes the pictures. What the mouth does is in mouth.py, dub.py is the whole way.
"""
