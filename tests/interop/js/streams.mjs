// A stream of js-libp2p, read in order and written with patience, its ends kept apart.

import { StreamResetError } from '@libp2p/interface'

const HIGH = 1 << 20 // bytes; more of it waiting here pauses the stream
const BLOCK = 64 << 10 // bytes
const WINDOW = 32 << 20 // bytes; a stream that is paused may be sent a whole window

const LOST = Object.assign(new Error('the connection was lost'), { name: 'Lost' })

export class Reader {
  #waiting = []
  #size = 0
  #ended = false
  #finished = false
  #error = null
  #wake = () => {}

  constructor (stream) {
    this.stream = stream
    stream.maxReadBufferLength = WINDOW
    stream.addEventListener('message', (event) => this.#take(event.data.subarray()))
    stream.addEventListener('remoteCloseWrite', () => { this.#finished = true })
    stream.addEventListener('end', () => { if (this.#finished) this.#end() })
    stream.addEventListener('close', (event) => this.#end(event.error))
    if (stream.status === 'open' || stream.status === 'closing') this.#finished = stream.remoteWriteStatus === 'closed'
    else this.#end(stream.status === 'reset' ? new StreamResetError() : LOST)
    if (stream.readableEnded && this.#finished) this.#end()
  }

  #take (data) {
    this.#waiting.push(data)
    this.#size += data.byteLength
    if (this.#size > HIGH && this.stream.readStatus === 'readable') this.stream.pause()
    this.#wake()
  }

  // Of a connection that is lost the library tells a stream only that it is over; the other side did not say so.
  #end (error) {
    this.#error ??= error ?? (this.#finished ? null : LOST)
    this.#ended = true
    this.#wake()
  }

  /** The next bytes, `most` of them at most; null at the clean end; throws what broke the stream. */
  async read (most = Infinity) {
    while (this.#waiting.length === 0) {
      if (this.stream.readStatus === 'paused') this.stream.resume()
      if (this.#waiting.length > 0) break
      if (this.#error != null) throw this.#error
      if (this.#ended && this.stream.readBufferLength === 0) return null // an end may come before its last bytes
      await new Promise((resolve) => { this.#wake = resolve })
    }
    const data = this.#waiting.shift()
    const taken = data.subarray(0, most)
    if (taken.byteLength < data.byteLength) this.#waiting.unshift(data.subarray(most))
    this.#size -= taken.byteLength
    return taken
  }

  /** Exactly so many bytes, or as many as came before the clean end. */
  async readExactly (size) {
    const parts = []
    for (let left = size; left > 0;) {
      const data = await this.read(left)
      if (data == null) break
      parts.push(data)
      left -= data.byteLength
    }
    return Buffer.concat(parts)
  }

  async readLine () {
    let line = ''
    while (!line.endsWith('\n')) {
      const data = await this.read(1)
      if (data == null) throw new Error('the line did not end')
      line += Buffer.from(data).toString()
    }
    return line
  }

  /** Everything to the clean end, each part given to `part`; the number of bytes. */
  async readAll (part = () => {}) {
    let size = 0
    for (let data; (data = await this.read()) != null;) {
      part(data)
      size += data.byteLength
    }
    return size
  }

  async readText () {
    const parts = []
    await this.readAll((data) => parts.push(data))
    return Buffer.concat(parts).toString()
  }
}

/** Send all of it, at the pace of the other side. */
export async function send (stream, data) {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data
  for (let from = 0; from < bytes.byteLength; from += BLOCK) {
    if (!stream.send(bytes.subarray(from, from + BLOCK))) await drained(stream)
  }
}

// The stream's own onDrain waits only once in its life: from the first drain on it is always done.
async function drained (stream) {
  if (!stream.writableNeedsDrain) return
  const over = new AbortController()
  const on = (event, callback) => stream.addEventListener(event, callback, { once: true, signal: over.signal })
  try {
    await new Promise((resolve, reject) => {
      on('drain', resolve)
      on('close', (event) => reject(event.error ?? LOST))
    })
  } finally {
    over.abort()
  }
}

/** `eof`, `reset` or the words of another trouble. */
export function endOf (error) {
  if (error == null) return 'eof'
  return { StreamResetError: 'reset', Lost: 'lost' }[error.name] ?? `${error.name}: ${error.message}`
}
