"""peerupctl: the admin client. Knows the daemon by its control socket, and of its code nothing but the model.

It starts fast because it imports little: the standard library, and each command's module only when it is called.
Without a daemon, what needs keys, files or the network is done by `peerupd once <verb>`.
"""
