"""The client: what a machine does before an operating system runs, as firmware does it and as a library."""
