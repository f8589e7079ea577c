"""What a trained prototype head found, and where.

- ``localise``: evidence of tokens for classes, and whether it lies where the events are
- ``events``: frames and whole events that a head reports, held against those that are known
- ``explainer``: the test clips of one result seen through its head
- ``subject``, ``view``: a saved head with its cache, clips and audio, for a page
- ``tokenmaps``, ``prototypes``: evidence, attention and activation of tokens; what prototypes stand for
- ``media``, ``sections``, ``page``: the page, in one HTML file with its pictures and sounds
- ``picture``: a clip's spectrogram with what was found where
"""
