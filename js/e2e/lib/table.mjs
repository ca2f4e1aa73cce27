// Results of many rounds as a table in Markdown.

const sum = (results, key) => results.reduce((total, result) => total + result[key], 0)
const most = (results, key) => results.reduce((greatest, result) => Math.max(greatest, result[key]), 0)

const COLUMNS = [
  ["rounds", results => results.length],
  ["typed", results => sum(results, "typed")],
  ["not on the server by itself", results => sum(results, "lostAtOnce")],
  ["… nor when a page was opened", results => sum(results, "lostLater")],
  ["… nor when the document was", results => sum(results, "lostForEver")],
  ["shown as saved, and lost", (results, client) => (client === "stock" ? "–" : sum(results, "savedButLost"))],
  ["oldest of the lost", results => (sum(results, "lostLater") > 0 ? `${most(results, "oldestLostMs")} ms` : "–")],
  ["last one there after: half, all", arrivals],
]

/** `results` are [{ client, ending, ...result }]. */
export function tableOf(results) {
  const head = ["the page's end", "client", ...COLUMNS.map(([title]) => title)]
  const lines = [head, head.map(() => "---")]
  for (const ending of distinct(results, "ending")) {
    for (const client of distinct(results, "client")) {
      const these = results.filter(result => result.ending === ending && result.client === client)
      if (these.length > 0) lines.push([ending, client, ...COLUMNS.map(([, cell]) => cell(these, client))])
    }
  }
  return lines.map(cells => `| ${cells.join(" | ")} |`).join("\n")
}

/** How long after the end the server had the last character, in rounds in which all came by themselves. */
function arrivals(results) {
  const times = results.filter(({ lostAtOnce }) => lostAtOnce === 0).map(({ arrivedMs }) => arrivedMs).sort((a, b) => a - b)
  if (times.length === 0) return "–"
  return `${times[Math.floor((times.length - 1) / 2)]}, ${times.at(-1)} ms`
}

function distinct(results, key) {
  return [...new Set(results.map(result => result[key]))]
}
