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

/** The editors' text in the page's language, or as it is. */
export function text(english) {
  return table()?.imtalker?.[english] ?? english
}

/** The choices of a node's combo in the page's language, by value; undefined if they are not translated. */
export function choices(node, input) {
  return node?.startsWith("IMTalker") ? table()?.nodeDefs?.[node]?.inputs?.[input]?.options : undefined
}
