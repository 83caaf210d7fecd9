"""From files to a running kernel: check them, prepare what the kernel wants to be handed, and let go."""
