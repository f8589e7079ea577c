"""Many heads trained side by side from one read of the tokens.

- ``trial``: what is trained: one head with one setting; what came of it
- ``run``: one pass over all trials that survives interruption
- ``trainer``: the pass itself: epochs, validation, early stops
- ``group``, ``stack``: trials of one shape that step together, and their stacked weights
- ``losses``, ``optimizer``, ``validation``: loss, AdamW and validation score over stacked heads
- ``predict``: logits of heads on the clips of their tasks
- ``rng``: random numbers of a head's own
- ``memory``: how many heads fit side by side
- ``resume``: where a pass stands, on disk
- ``distributed``: trials dealt out over the processes of a torchrun job
"""
