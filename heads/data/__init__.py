"""From a cache and labels to batches.

- ``tasks``: what is asked: which rows train, select and test which labels
- ``draw``: a split drawn for a manifest that lacks one
- ``splits``: which clip is train, valid or test
- ``groups``: which clips are of one recording, and no two splits may share
- ``checks``: what of a question cannot be judged
- ``shots``: a few clips of each class, for learning curves
- ``source``: where tokens are read from: disk, or memory where they fit
- ``moments``: mean and spread of each channel over the train clips
- ``batch``: what was read of some clips, and the part of it that a head wants
- ``loader``: the order of an epoch, and batches read ahead
"""
