// The commands and programs of a Markdown document, in order, with the answers that it shows.

const FENCE = /^```(\w*)/
const NAME = /^(?:\/\/|#) (\S+\.(?:mjs|py|rs))$/
const ANSWERS = ["json", "text"]

/** What a block is, by its language: programs are saved under the name in their first line, commands are run. */
const KINDS = { sh: "command", js: "program", python: "program", rust: "rust" }

/**
 * The blocks of a document: `{ kind, line, text, name, answer }`. A block of JSON or text is the answer of the command right before it. Nothing is for reading
 * only.
 */
export function blocksOf(markdown) {
  const blocks = []
  let last
  for (const { language, line, text, isRightAfter } of fenced(markdown)) {
    if (ANSWERS.includes(language)) {
      const asks = isRightAfter && ["command", "rust"].includes(last?.kind) && !last.answer
      if (!asks) throw new Error(`line ${line}: this answer comes after no command`)
      last.answer = { language, line, text }
    } else if (language in KINDS) {
      last = { kind: KINDS[language], line, text }
      const name = NAME.exec(text.split("\n", 1)[0])?.[1]
      if (last.kind !== "command" && !name) throw new Error(`line ${line}: the first line of a program has its name`)
      last.name = name
      blocks.push(last)
    } else throw new Error(`line ${line}: nothing is known of blocks of "${language}"`)
  }
  return blocks
}

function* fenced(markdown) {
  const lines = markdown.split("\n")
  let isRightAfter = false
  for (let at = 0; at < lines.length; at++) {
    const fence = FENCE.exec(lines[at])
    if (!fence) {
      if (lines[at].trim() !== "") isRightAfter = false
      continue
    }
    const end = lines.indexOf("```", at + 1)
    if (end < 0) throw new Error(`line ${at + 1}: this block does not end`)
    yield { language: fence[1], line: at + 1, text: lines.slice(at + 1, end).join("\n"), isRightAfter }
    isRightAfter = true
    at = end
  }
}

/** Whether an answer is what is shown. `…` stands for anything: a value, or a part of a line. */
export function isAsShown({ language, text }, output) {
  if (language === "json") return isLike(JSON.parse(text), JSON.parse(output))
  const shown = text.trimEnd().split("\n")
  const lines = output.trimEnd().split("\n")
  return shown.length === lines.length && shown.every((line, at) => pattern(line).test(lines[at]))
}

function isLike(shown, value) {
  if (typeof shown === "string" && shown.includes("…")) {
    return shown === "…" || (typeof value === "string" && pattern(shown).test(value))
  }
  if (shown === null || typeof shown !== "object") return shown === value
  if (value === null || typeof value !== "object" || Array.isArray(shown) !== Array.isArray(value)) return false
  const keys = Object.keys(shown)
  return keys.length === Object.keys(value).length && keys.every(key => key in value && isLike(shown[key], value[key]))
}

function pattern(shown) {
  const parts = shown.split("…").map(part => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
  return new RegExp(`^${parts.join(".*")}$`)
}
