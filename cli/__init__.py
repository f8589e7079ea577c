"""The command line: words to calls. One file per command: parse, call, print."""
