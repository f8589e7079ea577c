"""A study as a file: encoders x data sets x heads under one protocol, to one table.

The word "study" is that of the command; `featcache.heads.probing.study` is what one search keeps of itself.

- ``study``: what a study is: encoders, data sets, cells
- ``settings``: a study read from its TOML file
- ``template``: a file to begin with
- ``sources``: a data set of the study as a manifest
- ``steps``: what was done of a cell, and of what
- ``plan``: what is there, what is to be done, and what is missing
- ``run``: the cells, one after another
- ``launch``: the cells on a cluster
- ``report``: the tables of what is done
"""
