"""Writing a cache: clip by clip in, whole durable shards out, by one process or several.

- ``writer``: ``CacheWriter``, the entry
- ``shard_queue``: the threads that append clips and end shards
- ``in_order``: one thread that does what it is handed, in order
- ``plan``: which clips make which shard
- ``open_shard``: one shard from its first clip to its place in the ledger
- ``commit``: ending a shard where other writers may be at the same one
- ``first_clips``: the first few, held until the scales of channels follow from them
- ``sample``: which scales follow from them, and what a storage dtype would lose
- ``given_clip``: one clip as a caller gives it, checked
- ``clip_buffer``: one clip in the form that is stored
- ``plain``: one layer of it, by NumPy and torch
- ``native``: the same in one pass in C (``csrc/``), compiled when first needed
- ``recovery``: what was there before, and what a crash left
- ``folders``: the folders of a cache, and what in them is a cache's own
- ``lock``: one writer at a time, or several that share the work
"""
