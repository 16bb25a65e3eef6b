"""Makes a release of this repository: `make release`.  docs/releasing.md tells the way to one."""
