"""What each command does: one short module per noun, each with its table `VERBS`."""
