"""Peers: other registration tools, each installed and run in an environment of its own."""
