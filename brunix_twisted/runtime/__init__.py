"""Additions to Twisted and to the process: reactors, listening, shutdown, background threads."""
