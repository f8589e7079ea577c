"""The command line: words to calls. One file per command: parse, call, print.

- ``main``: the command ``featcache``, and how errors leave it
- ``demo``, ``doctor``, ``manifest``, ``extract``, ``probe``, ``predict``, ``explain``, ``compare``,
  ``report``, ``study``, ``fewshot``, ``cache``, ``datasets``, ``encoders``, ``heads``: its subcommands
- ``cache_verify``, ``cache_derive``, ``cache_remote``: the parts of ``cache`` that check, convert, and copy
  to and from buckets
- ``extract_report``: what ``extract`` says at its end
- ``advice``: which option would make an extraction faster
- ``plan``: what an extraction will cost, in words
- ``submit``: an extraction as jobs of a cluster
- ``ranks``: an extraction as one process for each GPU of this machine
- ``options``: options that several commands share
- ``live``: the table of trials while they train
- ``signals``: Ctrl-C and SIGTERM, once and twice
"""
