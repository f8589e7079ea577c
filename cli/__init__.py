"""The command line: words to calls. One file per command: parse, call, print.

- ``main``: the command ``featcache``, and how errors leave it
- ``demo``, ``manifest``, ``extract``, ``probe``, ``predict``, ``explain``, ``compare``, ``report``,
  ``study``, ``fewshot``, ``cache``, ``datasets``, ``encoders``, ``heads``: its subcommands
- ``cache_remote``: the part of ``cache`` that copies to and from buckets
- ``options``: options that several commands share
- ``live``: the table of trials while they train
- ``signals``: Ctrl-C and SIGTERM, once and twice
"""
