"""Dialogues as machines: bytes in, events out, time given as an argument; no sockets, no tasks, no clock."""
