// What a node shows beside its values, as long as the page is open: an undo makes all nodes anew, and loses none of it.

const NAMELESS = "00000000-0000-0000-0000-000000000000" // a graph from API format, until an undo gives it an id

const key = (node, graph) => `${graph} ${node.id}`

/** A value for each node of each workflow: others have nodes of the same ids. */
export class Memory {
  #kept = new Map()

  set(node, value) {
    this.#kept.set(key(node, node.graph?.id), value)
  }

  get(node) {
    return this.#kept.get(key(node, node.graph?.id)) ?? this.#kept.get(key(node, NAMELESS)) ?? null
  }
}
