"""What lies on disk; docs/cache-format.md is the specification.

- ``layout``: which arrays, of which shape, how many clips to a shard
- ``metadata``: the zarr.json files
- ``ledger``: which shards are finished, and their checksums
- ``fingerprint``: what the tokens are, and whether two caches agree
- ``shard_index``: where the clips lie in a shard file
- ``dtypes``, ``quantize``, ``codecs``: number formats and compressors of tokens
- ``channels``: scales and statistics of channels, and what is lost of each
- ``durable``: files that are whole or not there
"""
