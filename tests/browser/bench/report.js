// The figures as a table in markdown: the middle of all runs.

const median = values => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)]
const round = value => (value >= 100 ? value.toFixed(0) : value.toFixed(1))
const megabytes = bytes => (bytes / 1e6).toFixed(1)

/** Rows: what it is, and how its figures are read. */
const ROWS = [
  ["open from storage, ms", f => [f.fromStorage.map(v => v.ms)]],
  ["the page's longest task in that, ms (of the processor)", f => [f.fromStorage.map(v => v.task), f.fromStorage.map(v => v.cpu)]],
  ["open from the relay, ms", f => [f.fromRelay.map(v => v.ms)]],
  ["the page's longest task in that, ms (of the processor)", f => [f.fromRelay.map(v => v.task), f.fromRelay.map(v => v.cpu)]],
  ["keystroke until shown, ms (p99)", f => [f.typed.map(v => v.p50), f.typed.map(v => v.p99)]],
  ["until in local storage, ms (p99)", f => [f.stored.map(v => v.p50), f.stored.map(v => v.p99)]],
  ["until on the relay's disk, ms (p99)", f => [f.saved.map(v => v.p50), f.saved.map(v => v.p99)]],
  ...["remote", "both"].flatMap(figure => [
    [`${figure}: delay, ms (p99)`, f => [f[figure].map(v => v.delay.p50), f[figure].map(v => v.delay.p99)]],
    [`${figure}: frames missed (longest gap, ms)`, f => [f[figure].map(v => v.missed), f[figure].map(v => v.gap.max)]],
    [`${figure}: the page's longest task, ms (of the processor)`, f => [f[figure].map(v => v.task), f[figure].map(v => v.cpu)]],
    [`${figure}: all equal`, f => [f[figure].map(v => Number(v.equal))]],
  ]),
  ["scripts' heaps, MB (process, private)", f => [f.memory.map(v => megabytes(heap(v))).map(Number), f.memory.map(v => v.resident / 1e6)]],
]

const heap = ({ heaps }) => heaps.page.usedSize + heaps.workers.reduce((sum, { usedSize }) => sum + usedSize, 0)

export function table(found, sizes) {
  const columns = Object.entries(found).flatMap(([name, clients]) =>
    Object.entries(clients).map(([client, figures]) => ({ title: `${name}, ${client}`, figures }))
  )
  const lines = [
    ["", ...columns.map(({ title }) => title)],
    ["---", ...columns.map(() => "---:")],
    ...ROWS.map(([title, read]) => [title, ...columns.map(({ figures }) => cell(read(figures)))]),
  ]
  const written = Object.entries(sizes).map(
    ([client, { scripts, module }]) =>
      `download, ${client}: ${megabytes(scripts.raw + module.raw)} MB, brotli ${Math.round((scripts.brotli + module.brotli) / 1000)} kB`
  )
  return [...lines.map(cells => `| ${cells.join(" | ")} |`), "", ...written].join("\n")
}

/** One change of one field of one card of 1,000. */
export function boardTable(found) {
  const at = (values, share) => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) * share)]
  const cell = values => `${at(values, 0.5).toFixed(2)} (${at(values, 0.95).toFixed(2)})`
  const rows = [
    ["", ...Object.keys(found)],
    ["---", ...Object.keys(found).map(() => "---:")],
    ["change(), ms (p95)", ...Object.values(found).map(({ calls }) => cell(calls))],
    ["until its task ends, ms (p95)", ...Object.values(found).map(({ tasks }) => cell(tasks))],
  ]
  return rows.map(cells => `| ${cells.join(" | ")} |`).join("\n")
}

const cell = ([first, second]) =>
  second === undefined ? round(median(first)) : `${round(median(first))} (${round(median(second))})`
