// The test services, and what a client of each checks; all peers of the matrix have the same (see go/services.go).

import { createHash, randomBytes, randomFillSync } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Reader, endOf, send } from './streams.mjs'

const CHUNK = 1 << 20 // bytes
const PAUSE_AT = 1 << 20 // bytes that a slow reader takes before it pauses
const TALK = 512 // bytes of one half of a talk with echo
const MANY = 2000 // streams at once

export const OPTIONS = {
  maxInboundStreams: MANY, maxOutboundStreams: MANY, runOnLimitedConnection: true, negotiateFully: true
}
export const named = (service) => `/peerup/${service}/1.0.0`
export const ends = []

// -- services -------------------------------------------------------------------------------------------------------

export const services = {
  echo: async (stream, reader) => {
    await pass(reader, stream)
    await stream.close()
  },
  source: async (stream, reader) => {
    const digest = await sendContent(stream, Number(await reader.readLine()))
    await send(stream, digest)
    await stream.close()
  },
  sink: swallow,
  lazy: async (stream, reader) => {
    await sleep(1000 * Number(await reader.readLine()))
    await swallow(stream, reader)
  },
  early: async (stream, reader) => {
    await send(stream, 'early\n')
    await stream.close()
    await noteEnd(reader)
  },
  watch: async (stream, reader) => {
    await send(stream, 'watching\n')
    await noteEnd(reader)
    await stream.close()
  },
  cutter: async (stream, reader) => {
    await reader.readLine()
    await send(stream, 'half of an ans')
    stream.abort(new Error('cut'))
  }
}

/** The handler of a service: what it throws resets the stream. */
export function handler (serve) {
  return async (stream) => {
    try {
      await serve(stream, new Reader(stream))
    } catch (error) {
      stream.abort(error)
    }
  }
}

async function pass (reader, stream) {
  for (let data; (data = await reader.read()) != null;) await send(stream, data)
}

async function swallow (stream, reader) {
  const digest = createHash('sha256')
  await reader.readAll((data) => digest.update(data))
  await send(stream, digest.digest('hex'))
  await stream.close()
}

async function noteEnd (reader) {
  let size = 0
  try {
    await reader.readAll((data) => { size += data.byteLength })
    ends.push(`eof ${size}`)
  } catch (error) {
    ends.push(`${endOf(error)} ${size}`)
  }
}

// -- clients --------------------------------------------------------------------------------------------------------

export const clients = {
  download: ['source', async (stream, reader, { size, pause = 0 }) => {
    await send(stream, `${size}\n`)
    const digest = createHash('sha256')
    const found = { end: 'eof', got: 0, right: false }
    try {
      while (found.got < size) {
        const data = await reader.read(size - found.got)
        if (data == null) return found
        const before = found.got
        digest.update(data)
        found.got += data.byteLength
        if (pause > 0 && before < PAUSE_AT && found.got >= PAUSE_AT) await sleep(1000 * pause)
      }
      const told = await reader.readExactly(33)
      found.right = digest.digest().equals(told)
    } catch (error) {
      found.end = endOf(error)
    }
    return found
  }],
  upload: ['sink', upload],
  'upload slowly': ['lazy', upload],
  'half-close': ['early', async (stream, reader) => {
    const heard = await reader.readText()
    await send(stream, 'late words')
    await stream.close()
    return { heard }
  }],
  cut: ['watch', async (stream, reader) => {
    await reader.readLine()
    await send(stream, new Uint8Array(1000))
    stream.abort(new Error('cut'))
    return {}
  }],
  'be cut': ['cutter', async (stream, reader) => {
    await send(stream, 'cut\n')
    return await untilEnd(reader)
  }],
  linger: ['echo', async (stream, reader) => {
    await talk(stream, reader)
    return await untilEnd(reader)
  }]
}

async function upload (stream, reader, { size, pause = 0 }) {
  try {
    if (pause > 0) await send(stream, `${pause}\n`)
    const digest = await sendContent(stream, size)
    await stream.close()
    return { end: 'eof', right: (await reader.readText()) === digest.toString('hex') }
  } catch (error) {
    return { end: endOf(error), right: false }
  }
}

async function untilEnd (reader) {
  const began = performance.now()
  let got = 0
  const found = (error) => ({ end: endOf(error), got, seconds: (performance.now() - began) / 1000 })
  try {
    await reader.readAll((data) => { got += data.byteLength })
    return found(null)
  } catch (error) {
    return found(error)
  }
}

/** Talk to echo on so many streams that are all open at once. */
export async function many (connection, count, signal) {
  let talking = 0
  const all = Promise.withResolvers()
  const arrive = () => { if (++talking === count) all.resolve() }
  const talkTwice = async () => {
    let stream, reader
    try {
      stream = await connection.newStream(named('echo'), { ...OPTIONS, signal })
      reader = new Reader(stream)
      await talk(stream, reader)
    } finally {
      arrive()
    }
    await all.promise
    await talk(stream, reader)
    await stream.close()
    if (await reader.read() != null) throw new Error('bytes too many')
  }
  const results = await Promise.allSettled(Array.from({ length: count }, talkTwice))
  const failed = results.filter((result) => result.status === 'rejected')
  return { right: count - failed.length, trouble: String(failed[0]?.reason ?? '') }
}

async function talk (stream, reader) {
  const sent = randomBytes(TALK)
  await send(stream, sent)
  if (!sent.equals(await reader.readExactly(TALK))) throw new Error('an echo of other bytes')
}

async function sendContent (stream, size) {
  const digest = createHash('sha256')
  for (let left = size; left > 0; left -= CHUNK) {
    const block = randomFillSync(new Uint8Array(Math.min(left, CHUNK)))
    digest.update(block)
    await send(stream, block)
  }
  return digest.digest()
}
