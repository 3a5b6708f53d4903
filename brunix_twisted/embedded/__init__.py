"""The embedded engine: a gRPC server with the contract of the Brunix Assistance Engine, run as a separate process.

It searches a folder of documents with SQLite's full-text index and quotes the passages that it finds. It needs no
network, no keys and no model weights. It shares only the generated messages with the gateway. Run it with
``python -m brunix_twisted.embedded``.
"""
