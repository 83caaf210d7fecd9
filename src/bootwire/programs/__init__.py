"""Programs that run on the bare machine before any loader: their sources, their built octets, and their parameters."""
