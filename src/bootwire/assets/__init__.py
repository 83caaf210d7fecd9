"""What can be served, by name: boot loaders and images recognised by content, and scripts rendered from plans. Pure."""
