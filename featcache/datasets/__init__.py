"""Sounds to try things on.

- ``soundscapes``: multi-label soundscapes with known event times
- ``mixing``: the arithmetic of one of them
- ``sources``: the recordings that they are made of
"""
