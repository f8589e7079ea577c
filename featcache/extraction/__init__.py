"""Stage one: every clip through a frozen encoder, once, into a token cache.

- ``extract``: the entry: what is run, into which cache
- ``rules``: what its options may be; ``layers``: which layers are kept
- ``wanted``: which clips: of the manifest, their windows, their variants
- ``fingerprint``: what the tokens are of
- ``audios``: clips by what they hold, so that equal audio is encoded once
- ``fill``: which clips are present, copied from another cache, or encoded; ``shards``: writes those
- ``sounds``: the waveforms of clips, as the encoder can take them
- ``share``: which shards are this process's, where several fill one cache
- ``plan``: what a run will cost, and whether it fits
- ``rates``: how fast a sample of the clips is decoded, encoded and stored
- ``result``: what a run did; ``run_record``: what the cache remembers of it
- ``stages``: which stage bounded a run, and what would help
- ``runner``: the encoder on its device
- ``transfer``: waveforms to that device, and tokens back in the store's dtype
- ``compiling``: the forward pass compiled for full batches
- ``batcher``: clips of one shape, batch after batch
- ``storing``: encoded clips to the writer of a cache
- ``interrupts``: Ctrl-C that waits until a batch is stored
- ``upload``: shards on their way to a bucket
- ``canaries``: stored clips encoded again, before a cache is trusted or grown
"""
