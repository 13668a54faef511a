// Command peer-go is a small libp2p peer on go-libp2p: a relay, the two ends of a proxy as peer-up has them, and a
// test peer that does what it is asked. What it has to say are JSON lines on stdout; the first one says that it is
// ready, its peer ID and its addresses. It ends by a signal; `peer` also with its stdin.
//
//	peer-go id    --key FILE
//	peer-go relay --listen MA [--buffer BYTES] [--limit-data BYTES --limit-seconds SECONDS]
//	peer-go serve --listen MA --protocol P --to HOST:PORT [--reserve RELAY_MA]
//	peer-go proxy --listen HOST:PORT --protocol P --peer MA [--via RELAY_MA]
//	peer-go peer  --listen MA
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// verb is what the program does until its context ends.
type verb func(context.Context, *options) error

var verbs = map[string]verb{"id": showID, "relay": relay, "serve": serve, "proxy": proxy, "peer": answer}

func main() {
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fail(fmt.Errorf("usage: peer-go id|relay|serve|proxy|peer [options]"))
	}
	o := &options{}
	o.define(flag.CommandLine)
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := verbs[os.Args[1]](ctx, o); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peer-go:", err)
	os.Exit(1)
}

var stdout sync.Mutex

// say writes one JSON line.
func say(what any) {
	line, err := json.Marshal(what)
	if err != nil {
		fail(err)
	}
	stdout.Lock()
	defer stdout.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func ready(peerID string, addresses []string) {
	say(map[string]any{"ready": map[string]any{"peer_id": peerID, "addresses": addresses}})
}
