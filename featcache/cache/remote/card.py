"""The page of a published cache."""

import json
from collections.abc import Iterable

from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import Entry
from featcache.encoders import ENCODERS

_PAGE = """---
license: other
tags:
  - featcache
  - audio
---

# Patch tokens of `{encoder}`

Every patch token of {clips:,} clips, {gigabytes:.3f} GB, made with featcache. No labels and no audio are
in it: bring the manifest of the data set.

| | |
|---|---|
| encoder | `{encoder}` |
| weights | sha256 of all tensors `{weights}` |
| licence of the weights | {licence} |
| clip length | {clip_seconds:g} s |
| grid | {rows} x {columns} (frequency x time), {dim} wide |
| layers | {layers} |
| stored as | {dtype} |

```sh
featcache cache pull hf-hub:{name} tokens.zarr
```

```python
import featcache

featcache.probe("tokens.zarr", "clips.csv", heads="protobin")
```

It is a Zarr v3 group, too. What the tokens are of, whole:

```json
{fingerprint}
```
"""


def dataset_card(name: str, layout: CacheLayout, entries: Iterable[Entry]) -> str:
    """README.md of a published cache, from its fingerprint.

    Args:
        name: OWNER/NAME
    """
    entries, fingerprint = list(entries), layout.fingerprint
    encoder = str(fingerprint.get("encoder", "unknown"))
    spec = ENCODERS.get(encoder)
    return _PAGE.format(
        name=name,
        encoder=encoder,
        clips=sum(entry.clips for entry in entries),
        gigabytes=sum(file["bytes"] for entry in entries for file in entry.files.values()) / 1e9,
        weights=fingerprint.get("weights", "not stated"),
        licence=spec.licence if spec else "not stated: see its authors",
        clip_seconds=float(fingerprint.get("clip_seconds") or 0),
        rows=layout.grid[0],
        columns=layout.grid[1],
        dim=layout.dim,
        layers=", ".join(map(str, layout.layers)),
        dtype=layout.dtype,
        fingerprint=json.dumps(fingerprint, indent=1),
    )
