"""BootServer: engines and policy wired together, still without I/O."""
