/**
 * What the server lets a client in with: the token itself, or a function that gets one. The function is
 * called before every attempt to connect; `expired` is true if the server refused the last one, so that
 * a cached token is not handed out again.
 */
export type Token = string | ((request: { expired: boolean }) => string | Promise<string>)

/** The url with the token as a query parameter, which is the one place that WebSockets allow. */
export function withToken(url: string, token: string | undefined): string {
  if (token === undefined) return url
  const result = new URL(url)
  result.searchParams.set("token", token)
  return result.href
}

/** The token to use now. */
export async function resolveToken(token: Token | undefined, expired: boolean): Promise<string | undefined> {
  return typeof token === "function" ? token({ expired }) : token
}

/** The same token, with the value that was last used: a closing page has no time to get a new one. */
export function rememberToken(token: Token | undefined): { token: Token | undefined; last: () => string | undefined } {
  if (typeof token !== "function") return { token, last: () => token }
  let last: string | undefined
  return { token: async request => (last = await token(request)), last: () => last }
}
