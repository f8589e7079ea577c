"""Heads that are solved, not trained: reference points that need no learning rate and no luck.

- ``registry``: the table ``SOLVED``, and from a name to a solved head
- ``features``: the table ``FEATURES``; one vector a clip, from one pass over the cache
- ``spectrum``: features standardised and turned into their principal axes
- ``linear``: a linear layer for every penalty of a path
- ``logistic``, ``descent``: logistic regression along a path of penalties, and the minimiser under it
- ``ridge``: least squares with a penalty, the whole path at once
- ``neighbours``: nearest neighbours and nearest class means, by cosine
- ``choose``: which penalty, on the valid split or by inner folds
- ``solve``: solved heads meet the test split, once, and are written down
"""
