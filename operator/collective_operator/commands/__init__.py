"""What people do with tasks in a cluster: `collective list` and its like, one module a command.

Each reads with `client`, prints with `render` (pure), and reaches pods by forwarded ports and logs alone, so that
access to the API server is all that it takes.
"""
