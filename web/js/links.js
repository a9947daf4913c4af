// Where a linked input of a node gets its value from: through reroutes, and through the borders of subgraphs.

const SUBGRAPH_INPUTS = "-10" // id of the node at which the links from outside a subgraph start
const MAX_DEPTH = 20

const slotOf = (node, name) => node.inputs?.findIndex((input) => input.name === name) ?? -1

export function isLinked(node, name) {
  const slot = slotOf(node, name)
  return slot >= 0 && Boolean(node.graph) && node.isInputConnected(slot)
}

/**
 * What decides a linked input: {node}, whose output it is, or {widget}, which a subgraph node shows for it. A subgraph
 * that is used several times has several.
 */
export const sourcesOf = (node, name) => (isLinked(node, name) ? follow(node, slotOf(node, name), 0) : [])

function follow(node, slot, depth) {
  const link = node.getInputLink(slot)
  if (!link || depth > MAX_DEPTH) return []
  if (String(link.origin_id) === SUBGRAPH_INPUTS) {
    const { name } = node.graph.inputs[link.origin_slot] ?? {}
    return instances(node.graph).flatMap((instance) => outside(instance, name, depth))
  }
  const origin = node.graph.getNodeById(link.origin_id)
  if (origin?.type === "Reroute") return follow(origin, 0, depth + 1)
  if (origin?.subgraph) return inside(origin.subgraph, link.origin_slot, depth)
  return origin ? [{ node: origin }] : []
}

/** What decides the input of a subgraph node. */
function outside(instance, name, depth) {
  if (isLinked(instance, name)) return follow(instance, slotOf(instance, name), depth + 1)
  const widget = instance.widgets?.find((one) => one.name === name)
  return widget ? [{ widget }] : []
}

/** What decides the output of a subgraph. */
function inside(subgraph, slot, depth) {
  const link = subgraph.outputs[slot]?.getLinks?.()[0]
  const origin = link && subgraph.getNodeById(link.origin_id)
  if (origin?.subgraph && depth < MAX_DEPTH) return inside(origin.subgraph, link.origin_slot, depth + 1)
  return origin ? [{ node: origin }] : []
}

/** Every node that stands for this subgraph. */
function instances(subgraph) {
  const root = subgraph.rootGraph ?? subgraph
  const graphs = [root, ...(root.subgraphs?.values() ?? [])]
  return graphs.flatMap((graph) => graph.nodes.filter((node) => node.subgraph === subgraph))
}

/** The value of a linked input as far as the page knows it: undefined if a node computes it, or if values differ. */
export function linkedValue(node, name) {
  const values = sourcesOf(node, name).map((source) => (source.widget ?? constant(source.node))?.value)
  return values.length && values.every((value) => value === values[0]) ? values[0] : undefined
}

/** The widget of a node whose output is its only value. */
const constant = (node) => (node.type.startsWith("Primitive") ? node.widgets?.[0] : undefined)
