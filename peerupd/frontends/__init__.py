"""The doors: HTTP over a Unix socket, the relay's `/healthz`, and who may call what. They add nothing of their own."""
