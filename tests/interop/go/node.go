package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// options are the words of the command line; each verb uses some.
type options struct {
	key, listen, transport, security, resources string
	protocol, to, peer, reserve, via            string
	buffer                                      int
	limitData                                   int64
	limitSeconds                                float64
}

func (o *options) define(flags *flag.FlagSet) {
	flags.StringVar(&o.key, "key", "", "file of the private key, made if missing; none: a new key")
	flags.StringVar(&o.listen, "listen", "", "where to listen: a multiaddr, for proxy HOST:PORT")
	flags.StringVar(&o.transport, "transport", "tcp", "tcp or quic")
	flags.StringVar(&o.security, "security", "tls,noise", "what is offered over tcp, the preferred one first")
	flags.StringVar(&o.resources, "resources", "default", "go-libp2p's own limits, or none")
	flags.StringVar(&o.protocol, "protocol", "", "the protocol of the proxied streams")
	flags.StringVar(&o.to, "to", "", "HOST:PORT of the service")
	flags.StringVar(&o.peer, "peer", "", "multiaddr of the peer that serves, with its ID")
	flags.StringVar(&o.reserve, "reserve", "", "multiaddr of a relay on which to hold a reservation")
	flags.StringVar(&o.via, "via", "", "multiaddr of the relay that the peer is behind")
	flags.IntVar(&o.buffer, "buffer", 2048, "bytes of the relay's forwarding buffer")
	flags.Int64Var(&o.limitData, "limit-data", 0, "bytes each way that a circuit may carry; 0: no limit")
	flags.Float64Var(&o.limitSeconds, "limit-seconds", 0, "seconds that a circuit may last; 0: no limit")
}

// newHost makes a host with what the options name, and nothing that runs by itself.
func newHost(o *options, listen ...string) (host.Host, error) {
	key, err := loadKey(o.key)
	if err != nil {
		return nil, err
	}
	all := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.UserAgent("peer-go"),
		libp2p.DisableMetrics(),
		libp2p.NoListenAddrs,
		libp2p.EnableRelay(), // after NoListenAddrs, which switches it off
		libp2p.ListenAddrStrings(listen...),
	}
	switch o.transport {
	case "tcp":
		all = append(all, libp2p.Transport(tcp.NewTCPTransport))
	case "quic":
		all = append(all, libp2p.Transport(quic.NewTransport))
	default:
		return nil, fmt.Errorf("unknown transport %q", o.transport)
	}
	for _, name := range strings.Split(o.security, ",") {
		switch name {
		case "noise":
			all = append(all, libp2p.Security(noise.ID, noise.New))
		case "tls":
			all = append(all, libp2p.Security(libp2ptls.ID, libp2ptls.New))
		default:
			return nil, fmt.Errorf("unknown security %q", name)
		}
	}
	if o.resources == "none" {
		all = append(all, libp2p.ResourceManager(&network.NullResourceManager{}))
	}
	return libp2p.New(all...)
}

// loadKey reads a key in libp2p's protobuf form, as peer-up keeps it.
func loadKey(file string) (crypto.PrivKey, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err == nil {
			return crypto.UnmarshalPrivateKey(data)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil || file == "" {
		return key, err
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(file, data, 0o600)
}

func showID(_ context.Context, o *options) error {
	key, err := loadKey(o.key)
	if err != nil {
		return err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return err
	}
	fmt.Println(id)
	return nil
}

// addresses are those where the host listens, with its ID.
func addresses(h host.Host) []string {
	found := []string{}
	for _, one := range h.Addrs() {
		found = append(found, fmt.Sprintf("%s/p2p/%s", one, h.ID()))
	}
	return found
}
