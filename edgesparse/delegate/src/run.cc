// Runs the steps of a graph, each split among the threads.
// flags: -O2
#include "graph.h"

namespace edgesparse {
namespace {

// Nanoseconds of work from which it pays to wake the other threads.
const double kWorthwhile = 8000;

struct Job {
  Graph* graph;
  const Step* step;
  const uint8_t *a, *b;
  uint8_t* out;
  Shape in_shape, out_shape;
  bool compact;  // the second half of a windowed step
};

struct Range {
  int from, to;
};

Range share(int n, int part, int parts) {
  return {(int)((int64_t)n * part / parts), (int)((int64_t)n * (part + 1) / parts)};
}

// A matrix is split by pixels where there are enough of them, else by rows.
void multiply(const Kernels& k, const Matrix& m, const uint8_t* in, uint8_t* out, int part, int parts) {
  const int vectors = (m.pixels + k.layout.vector - 1) / k.layout.vector;
  if (parts == 1 || vectors >= 4 * parts) {
    const Range r = share(vectors, part, parts);
    if (r.from < r.to) k.multiply(m, in, out, 0, m.rows, r.from, r.to);
  } else {
    const Range r = share(m.rows / 4, part, parts);
    if (r.from < r.to) k.multiply(m, in, out, r.from * 4, r.to * 4, 0, vectors);
  }
}

// Output rows of whole vectors, each multiplied from its place in the padded input.
void multiply_rows(const Job& j, int part, int parts) {
  const Kernels& k = *j.graph->kernels;
  const Matrix& m = j.step->matrix;
  const Range r = share(j.out_shape.height, part, parts);
  const size_t in_row = (size_t)j.step->padded->pitch * k.layout.unit,
               out_row = (size_t)m.pixels * k.layout.unit;
  for (int y = r.from; y < r.to; y++)
    k.multiply(m, j.graph->scratch + y * in_row, j.out + y * out_row, 0, m.rows, 0, m.pixels / k.layout.vector);
}

void run_spread(const Job& j, int part, int parts) {
  const Padded& p = *j.step->padded;
  const Layout& layout = j.graph->kernels->layout;
  const int groups = j.in_shape.groups();
  const size_t in_plane = plane_bytes(layout, j.in_shape.pixels());
  const Range r = share(groups, part, parts);
  for (int f = 0; f < p.phases; f++)
    j.graph->kernels->spread(
        p.spreads[f], r.to - r.from, j.a + (size_t)r.from * layout.planes * in_plane, in_plane,
        j.graph->scratch + ((size_t)f * groups + r.from) * layout.planes * p.plane, p.plane);
}

void run_groups(const Job& j, int part, int parts) {
  const Kernels& k = *j.graph->kernels;
  const Layout& layout = k.layout;
  const Depthwise& d = j.step->depthwise;
  uint8_t* scratch = j.graph->scratch + part * j.step->scratch;
  const Range r = share(d.groups, part, parts);
  if (j.step->direct) {
    if (r.from < r.to) k.depthwise_direct(d, j.a, j.out, r.from, r.to, scratch);
    return;
  }
  const Padded& p = *j.step->padded;
  const size_t in_plane = plane_bytes(layout, j.in_shape.pixels());
  const size_t out_plane = plane_bytes(layout, j.out_shape.pixels());
  uint8_t* wide = scratch + (size_t)p.phases * layout.planes * p.plane + kMargin;
  for (int g = r.from; g < r.to; g++) {
    const uint8_t* in = j.a + (size_t)g * layout.planes * in_plane;
    uint8_t* out = j.out + (size_t)g * layout.planes * out_plane;
    for (int f = 0; f < p.phases; f++)
      k.spread(p.spreads[f], 1, in, in_plane, scratch + (size_t)f * layout.planes * p.plane, p.plane);
    uint8_t* result = p.compacted ? wide : out;
    if (j.step->kind == kMaximum)
      k.max_pool(d, scratch, result);
    else if (j.step->kind == kAverage)
      k.average_pool(d, scratch, result);
    else
      k.depthwise(d, g, scratch, result);
    if (p.compacted) k.compact(1, d.out_height, d.out_width, p.pitch, wide, d.out_plane, out, out_plane);
  }
}

void run_part(void* argument, int part, int parts) {
  const Job& j = *(const Job*)argument;
  const Step& s = *j.step;
  const Kernels& k = *j.graph->kernels;
  const Layout& layout = k.layout;
  switch (s.kind) {
    case kFromNhwc:
    case kToNhwc: {
      const Shape& shape = s.kind == kFromNhwc ? j.out_shape : j.in_shape;
      const Range r = share(shape.groups(), part, parts);
      const size_t plane = plane_bytes(layout, shape.pixels());
      if (r.from >= r.to) return;
      if (s.kind == kFromNhwc)
        k.from_nhwc((const int8_t*)j.a, shape.pixels(), shape.channels, j.out, plane, r.from, r.to);
      else
        k.to_nhwc(j.a, plane, shape.pixels(), shape.channels, (int8_t*)j.out, r.from, r.to);
      return;
    }
    case kMultiply: return multiply(k, s.matrix, j.a, j.out, part, parts);
    case kWindowed: {
      const Padded& p = *s.padded;
      uint8_t* wide = j.graph->scratch + s.scratch;
      if (p.by_row) return multiply_rows(j, part, parts);
      if (!j.compact) return multiply(k, s.matrix, j.graph->scratch, p.compacted ? wide : j.out, part, parts);
      const Range r = share(j.out_shape.groups(), part, parts);
      const size_t out_plane = plane_bytes(layout, j.out_shape.pixels());
      k.compact(r.to - r.from, j.out_shape.height, j.out_shape.width, p.pitch,
                wide + (size_t)r.from * layout.planes * p.wide_plane, p.wide_plane,
                j.out + (size_t)r.from * layout.planes * out_plane, out_plane);
      return;
    }
    case kDepthwise:
    case kMaximum:
    case kAverage: return run_groups(j, part, parts);
    case kSum: {
      const Range r = share(j.out_shape.groups(), part, parts);
      const size_t group = group_bytes(layout, j.out_shape.pixels());
      k.add(s.addition, j.a + r.from * group, j.b + r.from * group, j.out + r.from * group,
            (r.to - r.from) * group);
      return;
    }
    case kPadding: {
      const Range r = share(j.out_shape.groups(), part, parts);
      const size_t in = plane_bytes(layout, j.in_shape.pixels()),
                   out = plane_bytes(layout, j.out_shape.pixels());
      k.spread(s.padded->spreads[0], r.to - r.from, j.a + (size_t)r.from * layout.planes * in, in,
               j.out + (size_t)r.from * layout.planes * out, out);
      return;
    }
  }
}

void run_spread_part(void* argument, int part, int parts) { run_spread(*(const Job*)argument, part, parts); }

}  // namespace

void run_graph(TfLiteContext* context, Graph* graph) {
  const Layout& layout = graph->kernels->layout;
  const auto data = [&](int value) -> uint8_t* {
    const Value& v = graph->values[value];
    return v.external ? (uint8_t*)context->tensors[v.tensor].data : graph->slots[v.slot].data;
  };
  // From one image to the next one: of NHWC as many bytes as the chain form that it is converted to has.
  const auto image = [&](int value, const Shape& shape) -> size_t {
    if (graph->values[value].nhwc) return (size_t)shape.pixels() * shape.channels;
    return shape.groups() * group_bytes(layout, shape.pixels());
  };
  for (const Step& step : graph->steps) {
    const Value &a = graph->values[step.a], &out = graph->values[step.out];
    const Shape in_shape = a.nhwc ? out.shape : a.shape, out_shape = out.nhwc ? a.shape : out.shape;
    Job job{graph,          &step,    data(step.a), step.b >= 0 ? data(step.b) : nullptr,
            data(step.out), in_shape, out_shape,    false};
    Pool* pool = step.work < kWorthwhile ? nullptr : graph->pool;
    for (int i = 0; i < out_shape.images; i++) {
      if (step.kind == kWindowed) {
        run_parts(pool, run_spread_part, &job);
        job.compact = false;
        run_parts(pool, run_part, &job);
        job.compact = true;
      }
      if (step.kind != kWindowed || step.padded->compacted) run_parts(pool, run_part, &job);
      job.a += image(step.a, in_shape);
      if (job.b) job.b += image(step.b, out_shape);
      job.out += image(step.out, out_shape);
    }
  }
}

}  // namespace edgesparse
