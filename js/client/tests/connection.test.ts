import { describe, expect, it } from "vitest"
import { Connection } from "../src/core/connection.js"
import type { WebSocketLike } from "../src/core/environment.js"
import { pass, useFakeTime } from "./fake/time.js"

/** A socket that does what the test says, and nothing else. */
class Puppet extends EventTarget implements WebSocketLike {
  static all: Puppet[] = []
  binaryType = ""
  readyState = 0
  closed = false
  bufferedAmount = 0
  readonly pinged: Array<() => void> = []

  constructor(readonly url: string) {
    super()
    Puppet.all.push(this)
  }

  on(_type: string, listener: () => void): void {
    this.pinged.push(listener)
  }

  send(): void {}

  close(): void {
    this.closed = true
  }

  open(): void {
    this.readyState = 1
    this.dispatchEvent(new Event("open"))
  }
}

function connection(options: object = {}, ping = () => true, isOwing = () => false) {
  Puppet.all = []
  const states: string[] = []
  const environment = {
    now: () => Date.now(),
    random: () => 1,
    setTimeout: (callback: () => void, ms: number) => setTimeout(callback, ms),
    clearTimeout: (timer: any) => clearTimeout(timer),
    WebSocket: () => Puppet,
  }
  const handlers = { onSocketOpen() {}, onMessage() {}, onStateChange: (state: string) => states.push(state), ping, isOwing }
  const made = new Connection("ws://test/", handlers, options, environment)
  made.start()
  return { made, states }
}

describe("a connection", () => {
  it("is given up if it is not ready in time, whatever the server pings", async () => {
    useFakeTime()
    const { made } = connection({ connectTimeout: 1000 })
    await pass(1)
    const [socket] = Puppet.all
    socket!.open()
    for (let n = 0; n < 4; n++) {
      await pass(300)
      for (const listener of socket!.pinged) listener()
    }
    expect([made.state, socket!.closed]).toEqual(["waiting", true])
  })

  it("is given up if the token never comes", async () => {
    useFakeTime()
    const { made } = connection({ connectTimeout: 1000, token: () => new Promise(() => {}) })
    await pass(1001)
    expect(made.state).toBe("waiting")
    expect(Puppet.all).toEqual([])
  })

  it("tries again if the token cannot be had", async () => {
    useFakeTime()
    let fails = true
    const token = () => (fails ? Promise.reject(new Error("no")) : Promise.resolve("yes"))
    const { made } = connection({ token })
    await pass(1)
    expect(made.state).toBe("waiting")
    fails = false
    await pass(500)
    expect(Puppet.all.map(({ url }) => url)).toEqual(["ws://test/?token=yes"])
  })

  it("stays while the server pings, and is given up when it stops", async () => {
    useFakeTime()
    const { made } = connection({}, () => true)
    await pass(1)
    const [socket] = Puppet.all
    socket!.open()
    made.ready()
    for (let n = 0; n < 20; n++) {
      await pass(5000)
      for (const listener of socket!.pinged) listener()
    }
    expect(made.state).toBe("open")
    await pass(20_001)
    expect(socket!.closed).toBe(true)
    // What an abandoned socket still says is not heard.
    socket!.dispatchEvent(Object.assign(new Event("close"), { code: 4422 }))
    expect(made.state).not.toBe("stopped")
  })

  it("starts anew when the network is back, if an attempt has been hanging since before", async () => {
    useFakeTime()
    const { made } = connection()
    await pass(2500)
    made.wake()
    await pass(1)
    expect(Puppet.all.map(({ closed }) => closed)).toEqual([true, false])
    // This one has only just begun.
    await pass(1000)
    made.wake()
    await pass(1)
    expect(Puppet.all.map(({ closed }) => closed)).toEqual([true, false])
  })

  it("lets an attempt go on if only somebody is in a hurry", async () => {
    useFakeTime()
    const { made } = connection()
    for (let n = 0; n < 10; n++) {
      await pass(1000)
      made.hurry()
    }
    expect(Puppet.all).toHaveLength(1)
  })

  it("is given up in time also if it is asked for signs of life again and again", async () => {
    useFakeTime()
    const { made } = connection({ heartbeatTimeout: 5000 })
    await pass(1)
    Puppet.all[0]!.open()
    made.ready()
    for (let n = 0; n < 6; n++) {
      made.wake()
      await pass(1000)
    }
    expect(Puppet.all[0]!.closed).toBe(true)
  })

  it("asks now and then while something is owed, however much the server says, and only then", async () => {
    useFakeTime()
    let [asked, isOwing] = [0, true]
    const { made } = connection({}, () => ++asked > 0, () => isOwing)
    await pass(1)
    const [socket] = Puppet.all
    socket!.open()
    made.ready()
    const hear = async (seconds: number) => {
      for (let second = 0; second < seconds; second++) {
        await pass(1000)
        socket!.dispatchEvent(Object.assign(new Event("message"), { data: "" }))
      }
    }
    await hear(60)
    expect(asked).toBeGreaterThanOrEqual(5)
    expect(asked).toBeLessThanOrEqual(6)
    isOwing = false
    asked = 0
    await hear(60)
    expect([asked, socket!.closed]).toEqual([0, false])
  })

  it("is not given up while a large message is on its way out, and is when that stands still", async () => {
    useFakeTime()
    const { made } = connection()
    await pass(1)
    const [socket] = Puppet.all
    socket!.open()
    made.ready()
    for (let left = 100; left > 0; left--) {
      socket!.bufferedAmount = left
      await pass(1000)
    }
    expect(socket!.closed).toBe(false)
    await pass(30_000)
    expect(socket!.closed).toBe(true)
  })

  it("is given up if its socket is closing and does not come to an end", async () => {
    useFakeTime()
    const { made } = connection({}, () => false)
    await pass(1)
    const [socket] = Puppet.all
    socket!.open()
    made.ready()
    socket!.readyState = 2
    await pass(11_000)
    expect(socket!.closed).toBe(true)
  })

  it("does nothing any more once it is ended", async () => {
    useFakeTime()
    const { made, states } = connection()
    made.end()
    await pass(100_000)
    expect(states).toEqual(["connecting", "idle"])
    expect(Puppet.all).toEqual([])
  })
})
