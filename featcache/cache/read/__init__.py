"""Reading a cache at memory speed.

- ``reader``: ``TokenCache``, the entry
- ``access``, ``preload``: mapped, by pread, or whole in memory; ``choose`` picks one
- ``shard_files``: open shard files, no more of them than allowed
- ``columns``: where each clip lies, and the small arrays
- ``loader``: batches by worker processes, in memory that is used again
- ``dataset``: torch datasets, with a manifest's labels if wanted
- ``whole``: whether a shard's files are as long as they were written, and small arrays what they were
- ``join``: a manifest's clips found in a cache
- ``threads``: threads that share a loop
- ``fastest``: how many of them, found out while reading
"""
