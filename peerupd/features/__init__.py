"""Rooms that a user can name: services, proxies, ping, pairing. What each needs of the network it declares itself."""
