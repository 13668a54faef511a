package main

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"

	ma "github.com/multiformats/go-multiaddr"
)

// plenty is for what a test must not run into by chance.
const plenty = 10000

// relay runs a circuit v2 relay; without limits, unless some are asked for.
func relay(ctx context.Context, o *options) error {
	h, err := newHost(o, o.listen)
	if err != nil {
		return err
	}
	defer h.Close()
	service, err := circuit.New(h, circuit.WithResources(relayResources(o)), circuit.WithReservationAddressFilter(anyAddress))
	if err != nil {
		return err
	}
	defer service.Close()
	ready(h.ID().String(), addresses(h))
	<-ctx.Done()
	return nil
}

func relayResources(o *options) circuit.Resources {
	r := circuit.DefaultResources()
	r.BufferSize = o.buffer
	r.MaxReservations, r.MaxReservationsPerIP, r.MaxCircuits = plenty, plenty, plenty
	r.Limit = nil
	if o.limitData > 0 || o.limitSeconds > 0 {
		r.Limit = &circuit.RelayLimit{Data: o.limitData, Duration: time.Duration(o.limitSeconds * float64(time.Second))}
		if o.limitData == 0 {
			r.Limit.Data = 1 << 62
		}
		if o.limitSeconds == 0 {
			r.Limit.Duration = 24 * time.Hour
		}
	}
	return r
}

// anyAddress lets a relay on loopback name its addresses in reservations.
func anyAddress(ma.Multiaddr) bool { return true }

// reserve takes a reservation and renews it while the context lasts; it returns the first one.
func reserve(ctx context.Context, h host.Host, at *peer.AddrInfo) (*client.Reservation, error) {
	h.ConnManager().Protect(at.ID, "relay")
	h.Peerstore().AddAddrs(at.ID, at.Addrs, peerstore.PermanentAddrTTL)
	first, err := client.Reserve(ctx, h, *at)
	if err != nil {
		return nil, err
	}
	go func() {
		for held := first; err == nil; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(held.Expiration) / 2):
				held, err = client.Reserve(ctx, h, *at)
			}
		}
	}()
	return first, nil
}

// circuitTo is the address of a peer behind a relay.
func circuitTo(relay ma.Multiaddr, id peer.ID) ma.Multiaddr {
	return relay.Encapsulate(ma.StringCast("/p2p-circuit/p2p/" + id.String()))
}
