"""What a trained prototype head found, and where.

- ``localise``: evidence of tokens for classes, and whether it lies where the events are
- ``explainer``: the test clips of one result seen through its head
- ``picture``: a clip's spectrogram with what was found where
"""
