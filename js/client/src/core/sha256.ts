// Browsers have SHA-256 only as a promise, and only on secure pages. This one is for a few bytes: the checksum in a document's id.

// prettier-ignore
const START = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
]
// prettier-ignore
const ROUNDS = [
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]
const BLOCK = 64

/** The SHA-256 of these bytes (FIPS 180-4). */
export function sha256(bytes: Uint8Array): Uint8Array {
  const state = Int32Array.from(START)
  const padded = pad(bytes)
  for (let at = 0; at < padded.byteLength; at += BLOCK) mix(state, new DataView(padded.buffer, at, BLOCK))
  const digest = new DataView(new ArrayBuffer(32))
  state.forEach((word, at) => digest.setInt32(4 * at, word))
  return new Uint8Array(digest.buffer)
}

/** A one, zeros, and the length in bits, to whole blocks. */
function pad(bytes: Uint8Array): Uint8Array {
  const padded = new Uint8Array(Math.ceil((bytes.length + 9) / BLOCK) * BLOCK)
  padded.set(bytes)
  padded[bytes.length] = 0x80
  new DataView(padded.buffer).setUint32(padded.length - 4, 8 * bytes.length)
  return padded
}

function mix(state: Int32Array, block: DataView): void {
  const words = new Int32Array(64)
  let [a, b, c, d, e, f, g, h] = state as unknown as [number, number, number, number, number, number, number, number]
  for (let at = 0; at < 64; at++) {
    words[at] = at < 16 ? block.getInt32(4 * at) : extend(words, at)
    const choice = (e & f) ^ (~e & g)
    const majority = (a & b) ^ (a & c) ^ (b & c)
    const first = (h + turns(e, 6, 11, 25) + choice + ROUNDS[at]! + words[at]!) | 0
    const second = turns(a, 2, 13, 22) + majority
    ;[a, b, c, d, e, f, g, h] = [(first + second) | 0, a, b, c, (d + first) | 0, e, f, g]
  }
  ;[a, b, c, d, e, f, g, h].forEach((word, at) => (state[at]! += word))
}

function extend(words: Int32Array, at: number): number {
  const [early, late] = [words[at - 15]!, words[at - 2]!]
  const small = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3)
  const large = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10)
  return words[at - 16]! + small + words[at - 7]! + large
}

function turns(word: number, one: number, two: number, three: number): number {
  return turn(word, one) ^ turn(word, two) ^ turn(word, three)
}

function turn(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits))
}
