"""The archive: configuration as text, as settings, and the edits between them."""
