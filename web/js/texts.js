// Texts in the language of the page: English as written in the code, others from locales/.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"

const tables = await loadTables()

async function loadTables() {
  try {
    return await (await api.fetchApi("/i18n")).json()
  } catch {
    return {} // English is readable too
  }
}

const table = () => tables[app.extensionManager?.setting?.get("Comfy.Locale")]

/** The editors' text in the page's language, or as it is. In the table, % stands for any value in a text. */
export function text(english) {
  const known = table()?.imtalker
  if (!known || known[english]) return known?.[english] ?? english
  for (const [pattern, translated] of Object.entries(known)) {
    const values = pattern.includes("%") && valuesIn(english, pattern)
    if (values) return translated.replaceAll("%", () => text(values.shift()))
  }
  return english
}

function valuesIn(english, pattern) {
  const parts = pattern.split("%").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
  return english.match(new RegExp(`^${parts.join("(.+)")}$`, "s"))?.slice(1)
}

/** The choices of a node's combo in the page's language, by value; undefined if they are not translated. */
export function choices(node, input) {
  return node?.startsWith("IMTalker") ? table()?.nodeDefs?.[node]?.inputs?.[input]?.options : undefined
}
