// Values that a node shows but does not save. An undo recreates every node; these values survive until the page closes.

const NO_ID = "00000000-0000-0000-0000-000000000000" // of a graph loaded from API format, until an undo gives it one

const key = (node, graph) => `${graph} ${node.id}`

/** One value for each node, by workflow: nodes of different workflows may have the same id. */
export class Memory {
  #values = new Map()

  set(node, value) {
    this.#values.set(key(node, node.graph?.id), value)
  }

  get(node) {
    return this.#values.get(key(node, node.graph?.id)) ?? this.#values.get(key(node, NO_ID)) ?? null
  }

  clear() {
    this.#values.clear()
  }
}
