import { createContext, createElement, useContext, type ReactNode } from "react"
import type { SaveStatusSource } from "../core/save-status.js"

const Source = createContext<SaveStatusSource | undefined>(undefined)

/** Properties of {@link SaveStatusProvider}. */
export interface SaveStatusProviderProps {
  /** The repo's adapter, or a plain document. */
  source: SaveStatusSource
  children?: ReactNode
}

/** Tells the hooks and components below it whom to ask. */
export function SaveStatusProvider({ source, children }: SaveStatusProviderProps): ReactNode {
  return createElement(Source.Provider, { value: source }, children)
}

/** The source that the nearest provider names. */
export function useSource(): SaveStatusSource {
  const source = useContext(Source)
  if (!source) throw new Error("no <SaveStatusProvider source={adapter}> above this component: put one around the application")
  return source
}
