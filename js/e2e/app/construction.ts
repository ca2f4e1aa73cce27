import type { Repo } from "@automerge/automerge-repo"
import type { SaveStatusSource } from "@highwater/client"

/** What the application gets from the one file that differs. The stock adapter has nobody to ask about saving. */
export interface Construction {
  repo: Repo
  source: SaveStatusSource | undefined
}
