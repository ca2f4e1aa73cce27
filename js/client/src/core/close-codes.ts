/** What a close code asks of the client. The codes are those of the server's protocol page. */
export type AfterClose =
  | { action: "retry"; delay?: number }
  | { action: "refreshToken" }
  | { action: "stop"; advice: string }

const FINAL: Record<number, string> = {
  1002: "the server could not read the connection; is something between the two that changes it?",
  1003: "the server takes no text frames here; are client and server of the same version?",
  1009: "a message was too large for the server; send less at once",
  4400: "the server could not read a message; are client and server of the same version?",
  4403: "this token may not do that; get one that may",
  4409: "another client uses the same peer id; give each Repo its own",
  4413: "too many documents are open, or too many storages followed; open fewer",
  4422: "the server refused what was sent; see its log, and do not send that again",
}

/** The token is missing, expired or not known. */
export const TOKEN_EXPIRED = 4401

const RETRY_HINT = /retry in (\d+) ms/
// A hint is believed up to here; a typing error in a reason must not silence a client for a day.
const RETRY_HINT_MS_MAX = 5 * 60_000

/** What to do after a close with this code and reason. */
export function afterClose(code: number, reason: string): AfterClose {
  const advice = FINAL[code]
  if (advice !== undefined) return { action: "stop", advice }
  if (code === TOKEN_EXPIRED) return { action: "refreshToken" }
  const hint = code === 1012 ? RETRY_HINT.exec(reason)?.[1] : undefined
  if (hint !== undefined) return { action: "retry", delay: Math.min(Number(hint), RETRY_HINT_MS_MAX) }
  return { action: "retry" }
}
