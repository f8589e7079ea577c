"""Writing a cache: clip by clip in, whole durable shards out.

- ``writer``: ``CacheWriter``, the entry
- ``shard_queue``: the threads that append clips and end shards
- ``open_shard``: one shard from its first clip to its line in the ledger
- ``clip_buffer``: one clip in the form that is stored
- ``recovery``: what was there before, and what a crash left
- ``folders``: the folders of a cache, and what in them is a cache's own
- ``lock``: one writer at a time
"""
