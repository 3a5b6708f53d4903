"""HTTP/1.1: connections, requests and bodies. Independent of routes and of the engine."""
