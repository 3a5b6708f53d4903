"""The embedded engine: a gRPC server with the contract of the Brunix Assistance Engine, in a process of its own.

It answers from a folder of documents with SQLite's full-text search, and quotes what it finds: no network, no keys, no
weights. It shares the generated messages with the gateway and nothing else. Run it with
``python -m brunix_twisted.embedded``.
"""
