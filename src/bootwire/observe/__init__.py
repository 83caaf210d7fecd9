"""Facts to prose, to JSON lines, to a timeline. Pure: it formats, others write."""
