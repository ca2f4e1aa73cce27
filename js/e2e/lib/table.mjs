// Results of many rounds as a table in Markdown.

const sum = (results, key) => results.reduce((total, result) => total + result[key], 0)
const most = (results, key) => results.reduce((greatest, result) => Math.max(greatest, result[key]), 0)

const COLUMNS = [
  ["rounds", results => results.length],
  ["typed", results => sum(results, "typed")],
  ["not on the server after the end", results => sum(results, "lostAtOnce")],
  ["… nor after a page was opened", results => sum(results, "lostLater")],
  ["… nor after the document was opened", results => sum(results, "lostForEver")],
  ["shown as saved, and lost", (results, client) => (client === "stock" ? "" : sum(results, "savedButLost"))],
  ["oldest that was lost", results => (sum(results, "lostLater") > 0 ? `${most(results, "oldestLostMs")} ms` : "")],
]

/** `results` are [{ client, ending, ...result }]. */
export function tableOf(results) {
  const lines = [["end of the page", "client", ...COLUMNS.map(([title]) => title)], COLUMNS.concat([0, 0]).map(() => "---")]
  for (const ending of distinct(results, "ending")) {
    for (const client of distinct(results, "client")) {
      const these = results.filter(result => result.ending === ending && result.client === client)
      if (these.length > 0) lines.push([ending, client, ...COLUMNS.map(([, cell]) => cell(these, client))])
    }
  }
  return lines.map(cells => `| ${cells.join(" | ")} |`).join("\n")
}

/** How long after the end of the page the last character came, when all came by themselves. */
export function arrivals(results) {
  const times = results.filter(({ lostAtOnce }) => lostAtOnce === 0).map(({ arrivedMs }) => arrivedMs).sort((a, b) => a - b)
  if (times.length === 0) return "none"
  const at = share => times[Math.min(times.length - 1, Math.floor(times.length * share))]
  return `half within ${at(0.5)} ms, the last after ${at(1)} ms`
}

function distinct(results, key) {
  return [...new Set(results.map(result => result[key]))]
}
