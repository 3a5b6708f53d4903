"""What the gateway needs of Twisted and of its process: reactors, listening, shutdown, background threads."""
