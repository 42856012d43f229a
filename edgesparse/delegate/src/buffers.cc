// Memory of a graph: packed weights, and buffers that tensors share.
// flags: -O2
#include "graph.h"

namespace edgesparse {

uint8_t* own(Graph* graph, size_t bytes) { return graph->owned.push(allocate(bytes)); }

void clear_graph(Graph* graph) {
  for (uint8_t* p : graph->owned) release(p);
  for (Slot& s : graph->slots) release(s.data);
  release(graph->scratch);
  graph->scratch = nullptr, graph->scratch_bytes = 0;
  graph->owned.clear(), graph->slots.clear(), graph->steps.clear(), graph->values.clear();
}

// Buffers for all values that are not the runtime's, shared by those that are never alive together.
void place_values(Graph* graph) {
  Array<Value>& values = graph->values;
  for (int i = 0; i < graph->steps.size; i++) {
    const Step& s = graph->steps[i];
    values[s.a].last = i;
    if (s.b >= 0) values[s.b].last = i;
    values[s.out].first = i;
    if (values[s.out].last < i) values[s.out].last = i;
  }
  for (int i = 0; i < graph->steps.size; i++) {
    for (Value& v : values) {
      if (v.external || v.first != i) continue;
      int best = -1;
      for (int s = 0; s < graph->slots.size; s++) {
        const Slot& slot = graph->slots[s];
        if (slot.used) continue;
        const size_t now = best < 0 ? 0 : graph->slots[best].bytes;
        if (best < 0 || (now < v.bytes ? slot.bytes > now : slot.bytes >= v.bytes && slot.bytes < now))
          best = s;
      }
      if (best < 0) {
        graph->slots.push(Slot{0, nullptr, false});
        best = graph->slots.size - 1;
      }
      Slot& slot = graph->slots[best];
      slot.used = true;
      if (slot.bytes < v.bytes) slot.bytes = v.bytes;
      v.slot = best;
    }
    for (const Value& v : values)
      if (!v.external && v.last == i && v.slot >= 0) graph->slots[v.slot].used = false;
  }
  for (Slot& s : graph->slots) s.data = allocate(s.bytes);
  graph->scratch = allocate(graph->scratch_bytes);
}

}  // namespace edgesparse
