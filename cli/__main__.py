"""``python -m featcache.cli``: the same as ``featcache``, for torchrun."""

from featcache.cli.main import main

main()
