// The ways in which a page can come to its end while somebody types. `prepare` does everything that takes time
// and returns the function that ends it; the function calls `scene.ended()` at the moment of the end.
//
// What has to be on the server without anybody's help is everything that was typed, or, where `deviceOnly`, what
// the device had, and that only when a page of the application is open again.

/** Highwater's client looks for tabs that are gone every few seconds, and the stock one tries to connect as often. */
const LOOK_MS = 8000

export const endings = {
  "tab closed": {
    async prepare({ page, ended }) {
      return () => {
        ended()
        return page.close()
      }
    },
  },

  "navigated away": {
    async prepare({ page, site, ended }) {
      return () => {
        ended()
        return page.goTo(site.elsewhere)
      }
    },
  },

  reloaded: {
    async prepare({ page, ended }) {
      return () => {
        ended()
        return page.page.reload({ waitUntil: "commit" })
      }
    },
  },

  "page process killed": {
    deviceOnly: true,
    async prepare(scene) {
      return crash(scene)
    },
  },

  "one of two tabs killed": {
    deviceOnly: true,
    stalledMs: { highwater: LOOK_MS },
    async prepare(scene) {
      scene.otherTab = await scene.idlePage()
      await scene.page.page.bringToFront()
      return crash(scene)
    },
  },

  "browser killed": {
    deviceOnly: true,
    async prepare({ profile, ended }) {
      const kill = await profile.readyToKillBrowser()
      return () => {
        const closed = kill()
        ended()
        return closed
      }
    },
    async after({ profile }) {
      await profile.open()
    },
  },

  "offline, then closed": {
    deviceOnly: true,
    onLine: true,
    async prepare({ page, profile, line, typeSome, ended }) {
      await typeSome()
      line.cut()
      await profile.setOffline(true)
      return () => {
        ended()
        return page.close()
      }
    },
    async after({ profile, line }) {
      await profile.setOffline(false)
      line.mend()
    },
  },

  "server killed and restarted": {
    stalledMs: { highwater: LOOK_MS, stock: LOOK_MS },
    async prepare({ server, typeSome, ended }) {
      await typeSome()
      const isDown = server.kill9()
      await typeSome()
      await isDown
      return () => {
        ended()
        return server.start()
      }
    },
  },
}

/** Half of the time by asking the browser for it, otherwise from outside. */
async function crash({ page, profile, random, otherTab, ended }) {
  const crashed = page.page.waitForEvent("crash")
  // If the browser has to be replaced before that, nobody waits for it any more.
  crashed.catch(() => {})
  const crash = () => void page.session.send("Page.crash").catch(() => {})
  // From outside all tabs would go.
  const kill = otherTab || random() < 0.5 ? crash : await profile.readyToKillPages()
  return async () => {
    kill()
    ended()
    await crashed
    await page.close()
  }
}
