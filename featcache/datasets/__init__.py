"""Benchmarks as they are published, read into manifests; and sounds to try things on.

- ``table``: the data sets by name
- ``spec``: what is known of one
- ``prepare``: a folder as a manifest, held against what is there and what was published
- ``listing``: what reading one gives
- ``hub``: shards of parquet, as the Hugging Face Hub has them
- ``whole``: whether what is listed is there, and as much as was published
- ``remote``: ``hf://`` in place of a folder
- ``root``: the folder, as adapters look into it
- ``youtube``: file names that hold a YouTube id
- ``birdset_events``: BirdSet's rules for events

One adapter a file, which says how the official files are read: ``audioset``, ``beans``, ``birdset``,
``cremad``, ``desed``, ``esc50`` (and ESC-10), ``fsd50k``, ``gtzan``, ``idmt_desed_fl``, ``nsynth``,
``spass``, ``speechcommands``, ``urbansed``, ``urbansound8k``, ``vocalsound``.

- ``soundscapes``: multi-label soundscapes with known event times
- ``mixing``: the arithmetic of one of them
- ``sources``: the recordings that they are made of
"""
