"""The network: the only wing that speaks libp2p. Host, swarm and streams; relays and paths on top of them."""
