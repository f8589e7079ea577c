"""Which audio, which labels, which split: read from CSV or folders, windowed, and named by content.

- ``clip``: ``Clip`` and ``Manifest``, what the rest of the package works with
- ``read``: CSV files and folders in, CSV files out
- ``table``: rows of named cells, or the line at which a file has none
- ``files``: what stands in the way of reading a file
- ``folders``: a folder of class folders as a manifest
- ``select``: labels renamed, kept and dropped
- ``fewshot``: few training clips of each class
- ``review``: what a manifest and its audio hold
- ``windows``: long recordings as runs of windows
- ``events``: strong labels, a CSV file beside a manifest
- ``variant``, ``variants``: augmented clips: what one is made of, and how many are drawn
- ``digests``: what a clip is: a digest of its audio's bytes and its segment
"""

from featcache.manifest.clip import SPLITS, Clip, Manifest
from featcache.manifest.folders import from_folders
from featcache.manifest.read import load_manifest, read_manifest, write_manifest

__all__ = [
    "SPLITS",
    "Clip",
    "Manifest",
    "from_folders",
    "load_manifest",
    "read_manifest",
    "write_manifest",
]
