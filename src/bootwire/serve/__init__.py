"""The edge: sockets, clock, entropy, files and processes. Engines decide; this room moves the octets."""
