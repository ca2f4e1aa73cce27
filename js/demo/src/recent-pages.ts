/** A page that was open on this device. */
export interface RecentPage {
  readonly url: string
  readonly title: string
}

const KEY = "highwater-demo recent pages"
const MAX = 12

export function recentPages(): RecentPage[] {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]")
  } catch {
    return []
  }
}

/** Puts this page first. */
export function rememberPage(page: RecentPage): void {
  const others = recentPages().filter(({ url }) => url !== page.url)
  try {
    localStorage.setItem(KEY, JSON.stringify([page, ...others].slice(0, MAX)))
  } catch {
    // Without storage there is no list, and everything else works.
  }
}
