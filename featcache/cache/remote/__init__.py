"""Caches in object stores and on far disks: copied shard by shard, whole or in part.

- ``store``: one place that fsspec reaches: names in, files out, tried again where a request fails
- ``push``: a local cache to a place, each shard's entry in the ledger last
- ``pull``: a cache, or the shards and layers that are asked for, to a local folder
- ``stage``: what a probe needs, brought near first
- ``hub``, ``card``: a cache as a data set of the Hugging Face Hub, and its page
- ``transferred``: what a push or a pull did
"""
