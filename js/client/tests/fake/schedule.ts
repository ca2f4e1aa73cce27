import fc from "fast-check"
import type { FakeServer } from "./server.js"
import type { Line } from "./socket.js"
import { pass } from "./time.js"

/** One thing that happens. */
export type Step =
  | { do: "edit"; document: number }
  | { do: "wait"; ms: number }
  | { do: "slowDisk"; ms: number }
  | { do: "cut" | "mend" | "stop" | "kill" | "start" | "expire" | "renew" }

/** Random schedules of edits and accidents. */
export const schedule = (maxLength: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.record({ do: fc.constant("edit" as const), document: fc.nat(1) }) },
      { weight: 5, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.oneof(fc.nat(30), fc.nat(3000)) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("slowDisk" as const), ms: fc.oneof(fc.nat(20), fc.nat(4000)) }) },
      { weight: 5, arbitrary: fc.record({ do: fc.constantFrom("cut", "mend", "stop", "kill", "start", "expire", "renew") }) }
    ) as fc.Arbitrary<Step>,
    { maxLength }
  )

/** Hands out tokens, not always good ones. */
export class Issuer {
  current = "token 0"
  #number = 0

  constructor(readonly server: FakeServer) {
    server.token = this.current
  }

  expire(): void {
    this.server.token = `token ${++this.#number}`
    this.server.closeAll(4401, "expired")
  }

  renew(): void {
    this.current = this.server.token!
  }
}

/** Makes it happen. */
export async function play(
  steps: Step[],
  { server, line, issuer, edit }: { server: FakeServer; line: Line; issuer: Issuer; edit: (document: number) => void }
): Promise<void> {
  for (const step of steps) {
    if (step.do === "edit") edit(step.document)
    else if (step.do === "wait") await pass(step.ms)
    else if (step.do === "slowDisk") server.commitMs = step.ms
    else if (step.do === "cut") line.cut()
    else if (step.do === "mend") mend(server, line)
    else if (step.do === "expire") issuer.expire()
    else if (step.do === "renew") issuer.renew()
    else server[step.do]()
  }
}

/** Everything works again. */
export function repair(server: FakeServer, line: Line, issuer: Issuer): void {
  server.start()
  mend(server, line)
  issuer.renew()
  server.commitMs = 1
}

function mend(server: FakeServer, line: Line): void {
  if (line.mode === "silent") line.mode = server.isRunning ? "up" : "refused"
}
