package main

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	ma "github.com/multiformats/go-multiaddr"
)

// serve hands each stream of the protocol on to a TCP service.
func serve(ctx context.Context, o *options) error {
	h, err := newHost(o, o.listen)
	if err != nil {
		return err
	}
	defer h.Close()
	h.SetStreamHandler(protocol.ID(o.protocol), func(s network.Stream) {
		service, err := net.Dial("tcp", o.to)
		if err != nil {
			s.Reset()
			return
		}
		join(s, service.(*net.TCPConn))
	})
	listening := addresses(h)
	if o.reserve != "" {
		at, err := peer.AddrInfoFromString(o.reserve)
		if err != nil {
			return err
		}
		if _, err = reserve(ctx, h, at); err != nil {
			return err
		}
		listening = append(listening, circuitTo(ma.StringCast(o.reserve), h.ID()).String())
	}
	ready(h.ID().String(), listening)
	<-ctx.Done()
	return nil
}

// proxy opens a stream to the peer for each TCP connection that it accepts.
func proxy(ctx context.Context, o *options) error {
	h, err := newHost(o)
	if err != nil {
		return err
	}
	defer h.Close()
	at, err := peer.AddrInfoFromString(o.peer)
	if err != nil {
		return err
	}
	if o.via != "" {
		at.Addrs = []ma.Multiaddr{circuitTo(ma.StringCast(o.via), at.ID)}
	}
	if err = h.Connect(ctx, *at); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	ready(h.ID().String(), []string{listener.Addr().String()})
	context.AfterFunc(ctx, func() { listener.Close() })
	for {
		local, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go bring(ctx, h, at.ID, protocol.ID(o.protocol), local.(*net.TCPConn))
	}
}

func bring(ctx context.Context, h host.Host, id peer.ID, p protocol.ID, local *net.TCPConn) {
	s, err := h.NewStream(network.WithAllowLimitedConn(ctx, "proxy"), id, p)
	if err != nil {
		abort(local)
		return
	}
	join(s, local)
}

// join carries bytes both ways, each to its end; a way that breaks cuts both.
func join(s network.Stream, local *net.TCPConn) {
	done := make(chan error)
	go func() { done <- carry(s, local) }()
	err := errors.Join(carry(local, s), <-done)
	if err != nil {
		s.Reset()
		abort(local)
		return
	}
	s.Close()
	local.Close()
}

type halfCloser interface {
	io.Writer
	CloseWrite() error
}

// carry moves bytes until the clean end, and says so to the other side. A break is told at once to both sides.
func carry(to halfCloser, from io.Reader) error {
	_, err := io.Copy(to, from)
	if err == nil {
		return to.CloseWrite()
	}
	for _, side := range []any{to, from} {
		switch one := side.(type) {
		case network.Stream:
			one.Reset()
		case *net.TCPConn:
			abort(one)
		}
	}
	return err
}

// abort closes a connection so that the other side sees a reset.
func abort(local *net.TCPConn) {
	local.SetLinger(0)
	local.Close()
}
