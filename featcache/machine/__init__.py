"""What this machine has and how fast it is: the facts of ``featcache doctor`` and of a plan.

- ``disk``: free space, kind of file system, rates of writing and reading
- ``facts``: versions, devices, instructions, memory, limits and weights that are already here
"""
