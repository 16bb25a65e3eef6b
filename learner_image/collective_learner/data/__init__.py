"""Data sets as files: the published ones in their own formats, and the shards and look-alikes of `collective data`.

Nothing here downloads anything, and nothing runs what a file says: a data set is something that a site has.
"""
