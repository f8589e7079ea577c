"""What a trained head found, and where.

- ``localise``: evidence of tokens for classes, and whether it lies where the events are
- ``explainer``: the test clips of one result seen through its head
- ``explain``: a page of HTML about a head; ``opened``: the head with what it was trained on
- ``learned``, ``tokenmaps``, ``clipview``: what prototypes, tokens and clips say
- ``sections``, ``media``: as HTML, pictures and sounds
- ``picture``: a clip's spectrogram with what was found where
"""
