// A test peer on js-libp2p that does what it is asked, as `peer-go peer` does: questions are JSON lines on stdin,
// answers JSON lines on stdout, the first of them `ready`. It ends with its stdin.
//
//   node peer.mjs --listen MA [--security tls,noise] [--limit-data BYTES --limit-seconds SECONDS]

import './polyfill.mjs'
import { setMaxListeners } from 'node:events'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify, identifyPush } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { peerIdFromMultihash, peerIdFromString } from '@libp2p/peer-id'
import { RecordEnvelope } from '@libp2p/peer-record'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import * as Digest from 'multiformats/hashes/digest'
// not exported: what a relay says in full, and what a voucher is
import { Envelope, HopMessage, ReservationVoucher } from './node_modules/@libp2p/circuit-relay-v2/dist/src/pb/index.js'
import { OPTIONS, clients, ends, handler, many, named, services } from './services.mjs'
import { Reader, send } from './streams.mjs'

const ANSWER_LIMIT = 110_000 // milliseconds
const HOP = '/libp2p/circuit/relay/0.2.0/hop'
const VOUCHER_DOMAIN = 'libp2p-relay-rsvp'
const SECURITY = { tls, noise }

const { values: options } = parseArgs({
  options: {
    listen: { type: 'string', default: '' },
    security: { type: 'string', default: 'tls,noise' },
    'limit-data': { type: 'string', default: '0' },
    'limit-seconds': { type: 'string', default: '0' }
  }
})

function relayServer () {
  const data = BigInt(options['limit-data'])
  const duration = 1000 * Number(options['limit-seconds'])
  return circuitRelayServer({
    reservations: {
      applyDefaultLimit: data > 0n || duration > 0,
      ...(data > 0n && { defaultDataLimit: data }),
      ...(duration > 0 && { defaultDurationLimit: duration })
    }
  })
}

const node = await createLibp2p({
  addresses: { listen: options.listen === '' ? [] : [options.listen] },
  transports: [tcp(), circuitRelayTransport()],
  connectionEncrypters: options.security.split(',').map((name) => SECURITY[name]()),
  streamMuxers: [yamux({ maxInboundStreams: OPTIONS.maxInboundStreams, maxOutboundStreams: OPTIONS.maxOutboundStreams })],
  connectionManager: { inboundConnectionThreshold: Infinity },
  services: {
    identify: identify(), push: identifyPush(), ping: ping(), ...(options.listen !== '' && { relay: relayServer() })
  }
})

const connections = new Map()
const learned = new Map()
node.addEventListener('peer:identify', ({ detail }) => learned.set(detail.peerId.toString(), detail))

// -- questions ------------------------------------------------------------------------------------------------------

const questions = {
  /** Dials exactly this address, whatever else is known of the peer. */
  async connect ({ address, signal }) {
    const connection = await node.dial(multiaddr(address), { force: true, signal })
    connections.set(connection.remotePeer.toString(), connection)
    return {
      security: connection.encryption,
      muxer: connection.multiplexer,
      limited: connection.limits != null,
      address: connection.remoteAddr.toString()
    }
  },
  async disconnect ({ peer, signal }) {
    await node.hangUp(peerIdFromString(peer), { signal })
    return {}
  },
  async learned ({ peer, service, signal }) {
    const id = peerIdFromString(peer)
    while (true) {
      signal.throwIfAborted()
      const found = learned.get(peer)
      const protocols = found == null ? [] : (await node.peerStore.get(id)).protocols
      if (found != null && (service == null || protocols.includes(named(service)))) return describe(found, protocols)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  },
  async ping ({ peer, signal }) {
    return { milliseconds: await node.services.ping.ping(peerIdFromString(peer), { signal }) }
  },
  async many ({ peer, count, signal }) {
    return await many(connections.get(peer), count, signal)
  },
  async serve ({ service }) {
    await node.handle(named(service), handler(services.echo), OPTIONS)
    return {}
  },
  async ends () {
    return { ends: ends.splice(0) }
  },
  async reserve ({ address, signal }) {
    const connection = await node.dial(multiaddr(address), { signal })
    const told = await askForReservation(connection, signal)
    const { voucher } = told.reservation
    const envelope = await RecordEnvelope.openAndCertify(Envelope.encode(voucher), VOUCHER_DOMAIN)
    const { relay, peer, expiration } = ReservationVoucher.decode(envelope.payload)
    await node.components.transportManager.listen([multiaddr(`${address}/p2p-circuit`)])
    return {
      relay: idOf(relay),
      peer: idOf(peer),
      life: Number(expiration) - Date.now() / 1000,
      data: Number(told.limit?.data ?? 0),
      seconds: told.limit?.duration ?? 0,
      address: `${address}/p2p-circuit/p2p/${node.peerId}`
    }
  }
}

async function askForReservation (connection, signal) {
  const stream = await connection.newStream(HOP, { signal })
  const request = HopMessage.encode({ type: HopMessage.Type.RESERVE })
  await send(stream, Buffer.concat([Buffer.from([request.byteLength]), request]))
  const reader = new Reader(stream)
  let size = 0
  for (let shift = 0; ; shift += 7) {
    const [byte] = await reader.readExactly(1)
    size += (byte & 0x7f) << shift
    if (byte < 0x80) break
  }
  const told = HopMessage.decode(await reader.readExactly(size))
  stream.abort(new Error('it has been answered'))
  if (told.reservation?.voucher == null) throw new Error(`no reservation or no voucher: ${told.status}`)
  return told
}

const idOf = (bytes) => peerIdFromMultihash(Digest.decode(bytes)).toString()

function describe (found, protocols) {
  const texts = (addresses) => addresses.map(String)
  return {
    agent: found.agentVersion ?? '',
    version: found.protocolVersion ?? '',
    protocols,
    addresses: texts(found.listenAddrs),
    observed: String(found.observedAddr ?? ''),
    signed: texts(found.signedPeerRecord?.addresses ?? [])
  }
}

async function beClient (question) {
  const client = clients[question.do]
  if (client == null) throw new Error(`unknown question ${question.do}`)
  const [service, run] = client
  const began = performance.now()
  const stream = await connections.get(question.peer).newStream(named(service), { ...OPTIONS, signal: question.signal })
  const found = await run(stream, new Reader(stream), question)
  return { seconds: (performance.now() - began) / 1000, ...found }
}

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`)

async function answer (line) {
  const question = JSON.parse(line)
  question.signal = AbortSignal.timeout(ANSWER_LIMIT)
  setMaxListeners(0, question.signal)
  try {
    say({ id: question.id, said: await (questions[question.do] ?? beClient)(question) })
  } catch (error) {
    say({ id: question.id, raised: `${error.name}: ${error.message}` })
  }
}

for (const [service, serve] of Object.entries(services)) await node.handle(named(service), handler(serve), OPTIONS)
say({ ready: { peer_id: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) } })
createInterface({ input: process.stdin }).on('line', answer).on('close', () => process.exit(0))
