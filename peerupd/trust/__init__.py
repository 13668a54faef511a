"""The gatehouse: who we are, whom we know, and who may come in. Pure but for two files; no network, no clock."""
