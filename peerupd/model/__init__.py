"""Words of the house: errors, names, addresses, snapshots. Pure values: no I/O, no clock, standard library only."""
