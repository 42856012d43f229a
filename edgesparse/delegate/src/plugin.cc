// The plug-in: two functions that the runtime's load_delegate() looks up, the options, claiming of nodes.
//
// Options (strings): isa=auto|avx512vnni|avxvnni|avx2|dotprod|neon|portable, min_zeros=0.0 to 1.0
// (default 0.5, with AMX 0.7), dense=auto|always|never, verbose=0|1, report=0|1. With report=1 each node is one
// line on stderr, its fields separated by tabs:
//   edgesparse-node  index  operator  taken|left  reason  zeros  rows of a block
// flags: -O2
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "graph.h"

namespace edgesparse {
namespace {

struct Delegate {
  TfLiteDelegate delegate;  // first: the runtime's pointer is ours
  Options options;
  const Kernels* kernels;
  Array<Layer> layers;  // of the last graph that was prepared, by node
};

// ---- options ----

typedef void (*ReportError)(const char*);

bool read_options(const char* const* keys, const char* const* values, size_t n, Options* o, char* message,
                  size_t size) {
  strcpy(o->isa, "auto");
  for (size_t i = 0; i < n; i++) {
    const char *key = keys[i], *value = values[i];
    bool good = false;
    const bool flag = !strcmp(value, "0") || !strcmp(value, "1");
    if (!strcmp(key, "isa")) {
      good = strlen(value) < sizeof o->isa;
      if (good) strcpy(o->isa, value);
    } else if (!strcmp(key, "min_zeros")) {
      char* end;
      o->min_zeros = strtod(value, &end);
      good = *value && !*end && o->min_zeros >= 0 && o->min_zeros <= 1;
    } else if (!strcmp(key, "dense")) {
      o->dense = !strcmp(value, "always") ? 1 : !strcmp(value, "never") ? -1 : 0;
      good = o->dense || !strcmp(value, "auto");
    } else if (!strcmp(key, "verbose")) {
      good = flag, o->verbose = *value == '1';
    } else if (!strcmp(key, "report")) {
      good = flag, o->report = *value == '1';
    } else {
      snprintf(message, size, "unknown option %.40s; known: isa, min_zeros, dense, verbose, report", key);
      return false;
    }
    if (!good) {
      snprintf(message, size, "option %s has the unexpected value %.40s", key, value);
      return false;
    }
  }
  return true;
}

// ---- the partition's kernel ----

void* kernel_init(TfLiteContext* context, const char* buffer, size_t) {
  const auto* params = (const TfLiteDelegateParams*)buffer;
  auto* delegate = (Delegate*)params->delegate->data;
  auto* graph = (Graph*)calloc(1, sizeof(Graph));
  if (!graph) return nullptr;
  graph->kernels = delegate->kernels;
  graph->verbose = delegate->options.verbose;
  for (int i = 0; i < params->nodes_to_replace->size; i++)
    for (const Layer& l : delegate->layers)
      if (l.node == params->nodes_to_replace->data[i] && l.op != kDensify) graph->layers.push(l);
  for (int i = 0; i < params->output_tensors->size; i++) graph->outputs.push(params->output_tensors->data[i]);
  graph->pool = start_pool(context->recommended_num_threads);
  return graph;
}

void kernel_free(TfLiteContext*, void* data) {
  auto* graph = (Graph*)data;
  if (!graph) return;
  clear_graph(graph);
  stop_pool(graph->pool);
  graph->~Graph();
  free(graph);
}

// The sizes of all inputs and outputs: what steps depend on.
void sizes(TfLiteContext* context, const Graph& graph, Array<int>* dims) {
  dims->clear();
  for (const Layer& l : graph.layers) {
    const int tensors[] = {l.input, l.output, l.op == kAdd ? l.input2 : -1};
    for (int t : tensors)
      if (t >= 0)
        for (int i = 0; i < context->tensors[t].dims->size; i++) dims->push(context->tensors[t].dims->data[i]);
  }
}

TfLiteStatus kernel_prepare(TfLiteContext* context, TfLiteNode* node) {
  auto* graph = (Graph*)node->user_data;
  if (!graph) return kTfLiteError;
  if (const char* why = propagate_shapes(context, *graph)) {
    context->ReportError(context, "edgesparse: %s. ", why);
    return kTfLiteError;
  }
  Array<int> now;
  sizes(context, *graph, &now);
  if (graph->steps.size && now.size == graph->dims.size &&
      !memcmp(now.data, graph->dims.data, sizeof(int) * now.size))
    return kTfLiteOk;
  graph->dims.clear();
  for (int d : now) graph->dims.push(d);
  if (!build_graph(context, graph)) {
    context->ReportError(context, "edgesparse: weights of a layer are no longer there");
    return kTfLiteError;
  }
  return kTfLiteOk;
}

TfLiteStatus kernel_invoke(TfLiteContext* context, TfLiteNode* node) {
  run_graph(context, (Graph*)node->user_data);
  return kTfLiteOk;
}

// ---- claiming ----

struct Candidate {
  int node, code;
  bool taken;
  const char* why;  // not taken
  Layer layer;
};

// A vector holds many pixels of one channel group: of fewer pixels than half a vector, that many more of the
// weights must be zero before skipping them is faster than a dense product that fills its vectors.
bool sparse_enough(const Delegate& d, const Layer& l) {
  // With matrix tiles the runtime's dense products are three times as fast.
  const double least = d.options.min_zeros >= 0 ? d.options.min_zeros : cpu_has_amx() ? 0.7 : 0.5;
  const double full = d.kernels->layout.vector / 2.0, filled = l.pixels < full ? l.pixels / full : 1.0;
  return is_convolution(l) && l.zeros >= least && 1 - l.zeros <= filled;
}

// Why a node that could be taken is better left, with those that are taken so far; null: it is not.
const char* why_leave(const Delegate& d, const Layer& l, const Array<Candidate>& nodes) {
  bool before = false, after = false;
  for (const Candidate& n : nodes)
    if (n.taken && n.code != kDensify) {
      before |= l.input == n.layer.output || l.input2 == n.layer.output;
      after |= n.layer.input == l.output || n.layer.input2 == l.output;
    }
  if (!before && !after)
    return is_convolution(l) ? "too few zeros, and not next to a taken node" : "not next to a taken node";
  if (!is_convolution(l) || (before && after)) return nullptr;
  if (l.op == kFullyConnected) return "too few zeros at the end of a chain";
  if (l.pixels * 2 < d.kernels->layout.vector) return "too few pixels for its zeros";
  // The runtime's dense products are much faster with matrix tiles.
  return cpu_has_amx() ? "dense products are faster with AMX" : nullptr;
}

// Nodes with enough zeros are taken, and those of the others that are connected to them through nodes that
// can be taken: so the chain is left as seldom as possible.
void choose(const Delegate& d, Array<Candidate>* nodes) {
  const int dense = d.options.dense;
  for (Candidate& c : *nodes) {
    if (c.why || c.code == kDensify) continue;
    c.taken = dense == 1 || sparse_enough(d, c.layer);
    if (!c.taken && dense == -1 && is_convolution(c.layer)) c.why = "too few zeros, and dense=never";
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (Candidate& c : *nodes) {
      if (c.taken || c.why || c.code == kDensify) continue;
      if (!why_leave(d, c.layer, *nodes)) c.taken = changed = true;
    }
  }
  for (Candidate& c : *nodes)
    if (!c.taken && !c.why && c.code != kDensify) c.why = why_leave(d, c.layer, *nodes);
}

void report(const Delegate& d, const Array<Candidate>& nodes) {
  int taken = 0;
  for (const Candidate& c : nodes) taken += c.taken;
  if (d.options.verbose)
    fprintf(stderr, "edgesparse: %d of %d nodes taken, kernels %s\n", taken, nodes.size, d.kernels->name);
  if (!d.options.report) return;
  for (const Candidate& c : nodes) {
    char number[24];
    const char* name = operator_name(c.code);
    snprintf(number, sizeof number, "operator %d", c.code);
    fprintf(stderr, "edgesparse-node\t%d\t%s\t%s\t%s\t%.4f\t%d\n", c.node, name ? name : number,
            c.taken ? "taken" : "left",
            c.taken ? ""
            : c.why ? c.why
                    : "",
            c.layer.zeros, c.layer.block);
  }
}

// A DENSIFY is taken when nobody else reads what it decodes.
void take_densify(const Array<Densify>& densify, TfLiteContext* context, Array<Candidate>* nodes) {
  for (Candidate& c : *nodes) {
    if (c.code != kDensify) continue;
    int output = -1;
    for (const Densify& d : densify)
      if (d.node == c.node) output = d.output;
    c.taken = output >= 0;
    bool read = false;
    for (const Candidate& n : *nodes) {
      TfLiteNode* node;
      TfLiteRegistration* registration;
      if (context->GetNodeAndRegistration(context, n.node, &node, &registration)) continue;
      for (int i = 0; node->inputs && i < node->inputs->size; i++)
        if (node->inputs->data[i] == output) {
          read = true;
          if (!n.taken || n.layer.weights != output) c.taken = false;
        }
    }
    if (!read) c.taken = false;
    if (!c.taken) c.why = "its weights are read by a node that is not taken";
  }
}

TfLiteStatus prepare(TfLiteContext* context, TfLiteDelegate* raw) {
  auto* d = (Delegate*)raw->data;
  TfLiteIntArray* plan;
  if (context->GetExecutionPlan(context, &plan)) return kTfLiteError;
  Array<int> order;  // the plan may be freed by later calls
  for (int i = 0; i < plan->size; i++) order.push(plan->data[i]);

  Array<Candidate> nodes;
  Array<Densify> densify;
  for (int index : order) {
    TfLiteNode* node;
    TfLiteRegistration* registration;
    if (context->GetNodeAndRegistration(context, index, &node, &registration)) return kTfLiteError;
    Candidate c;
    memset((void*)&c, 0, sizeof c);
    c.node = index, c.code = registration->builtin_code;
    if (c.code == kDensify && node->inputs->size == 1 && node->outputs->size == 1 &&
        node->inputs->data[0] >= 0) {
      densify.push(Densify{index, node->inputs->data[0], node->outputs->data[0]});
      c.layer.op = kDensify, c.layer.node = index;
    } else {
      c.why = describe(context, index, node, registration, densify, *d->kernels, &c.layer);
    }
    nodes.push(c);
  }
  choose(*d, &nodes);
  take_densify(densify, context, &nodes);
  report(*d, nodes);

  d->layers.clear();
  int taken = 0;
  for (const Candidate& c : nodes)
    if (c.taken) d->layers.push(c.layer), taken += c.code != kDensify;
  if (!taken) return kTfLiteOk;

  Array<int> claimed;  // as a TfLiteIntArray: its size first; in ascending order
  claimed.push(d->layers.size);
  for (const Layer& l : d->layers) claimed.push(l.node);
  for (int i = 2; i < claimed.size; i++)
    for (int j = i; j > 1 && claimed[j] < claimed[j - 1]; j--) {
      const int swap = claimed[j];
      claimed[j] = claimed[j - 1], claimed[j - 1] = swap;
    }
  TfLiteRegistration registration;
  memset(&registration, 0, sizeof registration);
  registration.init = kernel_init;
  registration.free = kernel_free;
  registration.prepare = kernel_prepare;
  registration.invoke = kernel_invoke;
  registration.builtin_code = kDelegate;
  registration.custom_name = "EdgeSparse";
  registration.version = 1;
  return context->ReplaceNodeSubsetsWithDelegateKernels(context, registration,
                                                        (const TfLiteIntArray*)claimed.data, raw);
}

}  // namespace
}  // namespace edgesparse

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT TfLiteDelegate* tflite_plugin_create_delegate(const char* const* keys, const char* const* values,
                                                     size_t n, void (*report_error)(const char*)) {
  using namespace edgesparse;
  char message[256] = "edgesparse: ";
  char* reason = message + strlen(message);
  const size_t room = sizeof message - strlen(message);
  Options options;
  const char* why = nullptr;
  const Kernels* kernels = nullptr;
  n = (size_t)(int)n;  // Python passes an int
  if (read_options(keys, values, n, &options, reason, room)) {
    kernels = choose_kernels(options.isa, &why);
    if (!kernels) snprintf(reason, room, "%s", why);
  }
  auto* d = kernels ? (Delegate*)calloc(1, sizeof(Delegate)) : nullptr;
  if (!d) {
    if (report_error) report_error(message);
    return nullptr;
  }
  d->delegate.data = d;
  d->delegate.Prepare = prepare;
  d->delegate.flags = kAllowDynamicTensors | kRequirePropagatedShapes;
  d->options = options;
  d->kernels = kernels;
  return &d->delegate;
}

EXPORT void tflite_plugin_destroy_delegate(TfLiteDelegate* raw) {
  using namespace edgesparse;
  if (!raw) return;
  auto* d = (Delegate*)raw->data;
  d->layers.~Array();
  free(d);
}
