package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// The test services, and what a client of each checks. All peers of the matrix have the same.
//
//	echo    sends back what comes, to its end
//	source  a line SIZE, then SIZE bytes and their SHA-256
//	sink    reads to the end, then answers with the SHA-256 in hex
//	lazy    a line SECONDS; pauses so long, then as sink
//	early   says `early` and ends, then reads on; notes how that ended
//	watch   says `watching`, then reads; notes how that ended
//	cutter  a line, then half an answer and a reset

const (
	chunk     = 64 << 10 // bytes
	pauseAt   = 1 << 20  // bytes that a slow reader takes before it pauses
	talkBytes = 512      // bytes of one half of a talk with echo
)

func named(service string) protocol.ID { return protocol.ID("/peerup/" + service + "/1.0.0") }

func (p *testPeer) serveAll() {
	for service, serve := range map[string]network.StreamHandler{
		"echo": echo, "source": source, "sink": sink, "lazy": lazy, "cutter": cutter, "early": p.early, "watch": p.watch,
	} {
		p.SetStreamHandler(named(service), serve)
	}
}

func echo(s network.Stream) {
	if _, err := io.Copy(s, s); err != nil {
		s.Reset()
		return
	}
	s.Close()
}

func source(s network.Stream) {
	size, err := number(bufio.NewReader(s))
	if err == nil {
		var digest []byte
		if digest, err = sendContent(s, int64(size)); err == nil {
			_, err = s.Write(digest)
		}
	}
	if err != nil {
		s.Reset()
		return
	}
	s.Close()
}

func sink(s network.Stream) { swallow(s, s) }

func lazy(s network.Stream) {
	reader := bufio.NewReaderSize(s, 16)
	seconds, err := number(reader)
	if err != nil {
		s.Reset()
		return
	}
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	swallow(s, reader)
}

func swallow(s network.Stream, from io.Reader) {
	digest := sha256.New()
	_, err := io.Copy(digest, from)
	if err == nil {
		_, err = s.Write([]byte(hex.EncodeToString(digest.Sum(nil))))
	}
	if err != nil {
		s.Reset()
		return
	}
	s.Close()
}

func cutter(s network.Stream) {
	bufio.NewReader(s).ReadString('\n')
	s.Write([]byte("half of an ans"))
	s.Reset()
}

func (p *testPeer) early(s network.Stream) {
	s.Write([]byte("early\n"))
	s.CloseWrite()
	p.noteEnd(s)
}

func (p *testPeer) watch(s network.Stream) {
	s.Write([]byte("watching\n"))
	p.noteEnd(s)
}

func (p *testPeer) noteEnd(s network.Stream) {
	size, err := io.Copy(io.Discard, s)
	p.note(fmt.Sprintf("%s %d", endOf(err), size))
	s.Close()
}

// -- clients -----------------------------------------------------------------------------------------------------

// withStream does what a client of one stream does.
func (p *testPeer) withStream(ctx context.Context, id peer.ID, q question) (facts, error) {
	clients := map[string]struct {
		service string
		run     func(network.Stream, question) (facts, error)
	}{
		"download": {"source", download}, "upload": {"sink", upload}, "upload slowly": {"lazy", upload},
		"half-close": {"early", halfClose}, "cut": {"watch", cut}, "be cut": {"cutter", beCut}, "linger": {"echo", linger},
	}
	client, known := clients[q.Do]
	if !known {
		return nil, fmt.Errorf("unknown question %q", q.Do)
	}
	s, err := p.NewStream(ctx, id, named(client.service))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline)
	return client.run(s, q)
}

// download takes Size bytes from a source; with Pause, it stops reading for so long after the first megabyte.
func download(s network.Stream, q question) (facts, error) {
	began := time.Now()
	if _, err := fmt.Fprintf(s, "%d\n", q.Size); err != nil {
		return nil, err
	}
	digest := sha256.New()
	got, err := io.CopyN(digest, s, min(q.Size, pauseAt))
	if err == nil {
		time.Sleep(time.Duration(q.Pause * float64(time.Second)))
		var more int64
		more, err = io.CopyN(digest, s, q.Size-got)
		got += more
	}
	var told []byte
	if err == nil {
		told, err = io.ReadAll(s)
	}
	return facts{
		"end": endOf(err), "got": got, "right": slices.Equal(told, digest.Sum(nil)), "seconds": time.Since(began).Seconds(),
	}, nil
}

// upload gives Size bytes to a sink; with Pause, to one that pauses for so long first.
func upload(s network.Stream, q question) (facts, error) {
	began := time.Now()
	if q.Pause > 0 {
		if _, err := fmt.Fprintf(s, "%g\n", q.Pause); err != nil {
			return nil, err
		}
	}
	digest, err := sendContent(s, q.Size)
	if err == nil {
		err = s.CloseWrite()
	}
	var told []byte
	if err == nil {
		told, err = io.ReadAll(s)
	}
	return facts{
		"end": endOf(err), "right": string(told) == hex.EncodeToString(digest), "seconds": time.Since(began).Seconds(),
	}, nil
}

// halfClose reads the acceptor's early end, and speaks after it.
func halfClose(s network.Stream, _ question) (facts, error) {
	heard, err := io.ReadAll(s)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write([]byte("late words")); err != nil {
		return nil, err
	}
	return facts{"heard": string(heard)}, s.CloseWrite()
}

// cut resets a stream that the other side reads.
func cut(s network.Stream, _ question) (facts, error) {
	if _, err := bufio.NewReader(s).ReadString('\n'); err != nil {
		return nil, err
	}
	if _, err := s.Write(make([]byte, 1000)); err != nil {
		return nil, err
	}
	return facts{}, s.Reset()
}

func beCut(s network.Stream, _ question) (facts, error) {
	if _, err := s.Write([]byte("cut\n")); err != nil {
		return nil, err
	}
	got, err := io.Copy(io.Discard, s)
	return facts{"end": endOf(err), "got": got}, nil
}

// linger talks to echo once, then waits for the end of the stream.
func linger(s network.Stream, _ question) (facts, error) {
	began := time.Now()
	if err := talk(s); err != nil {
		return nil, err
	}
	_, err := io.Copy(io.Discard, s)
	return facts{"end": endOf(err), "seconds": time.Since(began).Seconds()}, nil
}

// many talks to echo on so many streams that are all open at once.
func (p *testPeer) many(ctx context.Context, id peer.ID, count int) (facts, error) {
	began := time.Now()
	results := make(chan error)
	talking, all := make(chan struct{}, count), make(chan struct{})
	for range count {
		go func() { results <- p.talkTwice(ctx, id, talking, all) }()
	}
	go func() {
		for range count {
			<-talking
		}
		close(all)
	}()
	right, trouble := 0, ""
	for range count {
		if err := <-results; err != nil {
			trouble = err.Error()
		} else {
			right++
		}
	}
	return facts{"right": right, "trouble": trouble, "seconds": time.Since(began).Seconds()}, nil
}

func (p *testPeer) talkTwice(ctx context.Context, id peer.ID, talking chan<- struct{}, all <-chan struct{}) error {
	s, err := p.NewStream(ctx, id, named("echo"))
	if err == nil {
		defer s.Close()
		deadline, _ := ctx.Deadline()
		s.SetDeadline(deadline)
		err = talk(s)
	}
	talking <- struct{}{}
	if err != nil {
		return err
	}
	<-all
	if err := talk(s); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
		return fmt.Errorf("%d bytes too many: %w", len(rest), err)
	}
	return nil
}

func talk(s network.Stream) error {
	sent, came := make([]byte, talkBytes), make([]byte, talkBytes)
	rand.Read(sent)
	if _, err := s.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, came); err != nil {
		return err
	}
	if !slices.Equal(sent, came) {
		return errors.New("an echo of other bytes")
	}
	return nil
}

// -- small things ------------------------------------------------------------------------------------------------

func number(from *bufio.Reader) (float64, error) {
	line, err := from.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(line), 64)
}

// sendContent writes random bytes and returns their SHA-256.
func sendContent(to io.Writer, size int64) ([]byte, error) {
	var seed [32]byte
	rand.Read(seed[:])
	content := io.LimitReader(mathrand.NewChaCha8(seed), size)
	digest := sha256.New()
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, io.TeeReader(content, digest), make([]byte, chunk))
	return digest.Sum(nil), err
}

// endOf tells a clean end from a reset.
func endOf(err error) string {
	switch {
	case err == nil:
		return "eof"
	case errors.Is(err, network.ErrReset):
		return "reset"
	}
	return err.Error()
}
