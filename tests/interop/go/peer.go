package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	ma "github.com/multiformats/go-multiaddr"
)

// answerLimit ends a question that has not been answered.
const answerLimit = 110 * time.Second

// question is one line of stdin: what to do, and with what.
type question struct {
	ID      int     `json:"id"`
	Do      string  `json:"do"`
	Address string  `json:"address"`
	Peer    string  `json:"peer"`
	Service string  `json:"service"`
	Size    int64   `json:"size"`
	Count   int     `json:"count"`
	Pause   float64 `json:"pause"`
}

type facts map[string]any

// testPeer is a host that is asked questions.
type testPeer struct {
	host.Host
	mu      sync.Mutex
	learned map[peer.ID]event.EvtPeerIdentificationCompleted
	ends    []string
}

// answer serves the test services and a relay, and answers questions until stdin ends.
func answer(ctx context.Context, o *options) error {
	var listen []string
	if o.listen != "" {
		listen = append(listen, o.listen)
	}
	h, err := newHost(o, listen...)
	if err != nil {
		return err
	}
	defer h.Close()
	if o.listen != "" {
		service, err := circuit.New(h, circuit.WithResources(relayResources(o)), circuit.WithReservationAddressFilter(anyAddress))
		if err != nil {
			return err
		}
		defer service.Close()
	}
	p := &testPeer{Host: h, learned: map[peer.ID]event.EvtPeerIdentificationCompleted{}}
	identified, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(256))
	if err != nil {
		return err
	}
	go p.learn(identified)
	p.serveAll()
	ready(h.ID().String(), addresses(h))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		go p.answerOne(ctx, q)
	}
	return nil
}

func (p *testPeer) answerOne(ctx context.Context, q question) {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(ctx, "test"), answerLimit)
	defer cancel()
	found, err := p.do(ctx, q)
	if err != nil {
		say(facts{"id": q.ID, "raised": err.Error()})
		return
	}
	say(facts{"id": q.ID, "said": found})
}

func (p *testPeer) do(ctx context.Context, q question) (facts, error) {
	switch q.Do {
	case "connect":
		return p.connect(ctx, q.Address)
	case "reserve":
		return p.reserve(ctx, q.Address)
	case "ends":
		return facts{"ends": p.takeEnds()}, nil
	case "serve":
		p.SetStreamHandler(named(q.Service), echo)
		return facts{}, nil
	}
	id, err := peer.Decode(q.Peer)
	if err != nil {
		return nil, err
	}
	switch q.Do {
	case "disconnect":
		return facts{}, p.Network().ClosePeer(id)
	case "learned":
		return p.whatWasLearned(ctx, id, q.Service)
	case "ping":
		result := <-ping.Ping(ctx, p, id)
		return facts{"milliseconds": float64(result.RTT.Microseconds()) / 1000}, result.Error
	case "many":
		return p.many(ctx, id, q.Count)
	}
	return p.withStream(ctx, id, q)
}

// connect dials exactly this address, whatever else is known of the peer.
func (p *testPeer) connect(ctx context.Context, address string) (facts, error) {
	at, err := peer.AddrInfoFromString(address)
	if err != nil {
		return nil, err
	}
	p.Peerstore().ClearAddrs(at.ID)
	if err := p.Connect(ctx, *at); err != nil {
		return nil, err
	}
	conn := p.Network().ConnsToPeer(at.ID)[0]
	state := conn.ConnState()
	return facts{
		"security": state.Security, "muxer": state.StreamMultiplexer, "limited": conn.Stat().Limited,
		"address": conn.RemoteMultiaddr().String(),
	}, nil
}

func (p *testPeer) reserve(ctx context.Context, address string) (facts, error) {
	at, err := peer.AddrInfoFromString(address)
	if err != nil {
		return nil, err
	}
	held, err := reserve(ctx, p, at)
	if err != nil {
		return nil, err
	}
	if held.Voucher == nil {
		return nil, fmt.Errorf("the relay gave no voucher")
	}
	return facts{
		"relay": held.Voucher.Relay.String(), "peer": held.Voucher.Peer.String(),
		"life": time.Until(held.Voucher.Expiration).Seconds(),
		"data": held.LimitData, "seconds": held.LimitDuration.Seconds(),
		"address": circuitTo(ma.StringCast(address), p.ID()).String(),
	}, nil
}

// -- identify ----------------------------------------------------------------------------------------------------

func (p *testPeer) learn(identified event.Subscription) {
	for one := range identified.Out() {
		found := one.(event.EvtPeerIdentificationCompleted)
		p.mu.Lock()
		p.learned[found.Peer] = found
		p.mu.Unlock()
	}
}

// whatWasLearned waits until identify has told of the peer, and that it serves the service.
func (p *testPeer) whatWasLearned(ctx context.Context, id peer.ID, service string) (facts, error) {
	for {
		p.mu.Lock()
		found, known := p.learned[id]
		p.mu.Unlock()
		serves, err := p.Peerstore().SupportsProtocols(id, named(service))
		if err != nil {
			return nil, err
		}
		if known && (service == "" || len(serves) > 0) {
			return p.describe(id, found)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("not learned: identified %v, serves %v", known, serves)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *testPeer) describe(id peer.ID, found event.EvtPeerIdentificationCompleted) (facts, error) {
	protocols, err := p.Peerstore().GetProtocols(id)
	if err != nil {
		return nil, err
	}
	return facts{
		"agent": found.AgentVersion, "version": found.ProtocolVersion, "protocols": protocol.ConvertToStrings(protocols),
		"addresses": texts(found.ListenAddrs), "observed": found.ObservedAddr.String(),
		"signed": texts(signedAddresses(found.SignedPeerRecord)),
	}, nil
}

func signedAddresses(envelope *record.Envelope) []ma.Multiaddr {
	if envelope == nil {
		return nil
	}
	found, err := envelope.Record()
	if err != nil {
		return nil
	}
	return found.(*peer.PeerRecord).Addrs
}

func texts(addresses []ma.Multiaddr) []string {
	found := []string{}
	for _, one := range addresses {
		found = append(found, one.String())
	}
	return found
}

// -- what the services noted -------------------------------------------------------------------------------------

func (p *testPeer) note(end string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = append(p.ends, end)
}

func (p *testPeer) takeEnds() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := append([]string{}, p.ends...)
	p.ends = nil
	return taken
}
