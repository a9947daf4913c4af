// The editors' texts in the language of the page: English as written in the code, Chinese from locales/zh/main.json.

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

/** The text in the page's language, or as it is. */
export function text(english) {
  const language = app.extensionManager?.setting?.get("Comfy.Locale")
  return tables[language]?.imtalker?.[english] ?? english
}
