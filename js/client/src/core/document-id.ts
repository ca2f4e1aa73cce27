import { sha256 } from "./sha256.js"

const DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
const ID_BYTES = 16
const CHECKSUM_BYTES = 4

/**
 * A new document's id: 16 random bytes and the beginning of their double SHA-256, in base58, as automerge-repo
 * makes them.
 */
export function newDocumentId(bytes: Uint8Array = randomBytes()): string {
  return toBase58([...bytes, ...checksum(bytes)])
}

/** The id in this text, which may be a document's url. Throws if there is none: the server would refuse it again and again. */
export function documentIdIn(text: string): string {
  const id = text.replace(/^automerge:/, "")
  const bytes = fromBase58(id)
  const payload = bytes?.slice(0, ID_BYTES)
  if (payload?.length === ID_BYTES && newDocumentId(Uint8Array.from(payload)) === id) return id
  throw new Error(`"${text}" is not a document id: they are made by newDocumentId(), or by automerge-repo, and look like 4NMNnkMhL8jXrdJ9jamS58PAVdXu`)
}

function randomBytes(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(ID_BYTES))
}

function checksum(bytes: Uint8Array): Uint8Array {
  return sha256(sha256(bytes)).subarray(0, CHECKSUM_BYTES)
}

/** A zero at the beginning is a digit of its own, so that none is lost. */
function toBase58(bytes: readonly number[]): string {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
  let digits = ""
  for (; number > 0n; number /= 58n) digits = DIGITS[Number(number % 58n)] + digits
  const zeros = bytes.findIndex(byte => byte !== 0)
  return DIGITS[0]!.repeat(zeros) + digits
}

function fromBase58(text: string): number[] | undefined {
  let number = 0n
  for (const digit of text) {
    const value = DIGITS.indexOf(digit)
    if (value < 0) return undefined
    number = number * 58n + BigInt(value)
  }
  const bytes: number[] = []
  for (let left = ID_BYTES + CHECKSUM_BYTES; left > 0; left--, number /= 256n) bytes.unshift(Number(number % 256n))
  return bytes
}
