// From layers to steps, for the shapes that the tensors have now.
// flags: -O2
#include <math.h>

#include "graph.h"

namespace edgesparse {

namespace {

struct Builder {
  TfLiteContext* context;
  Graph* graph;
  Array<Layer> pads;  // PAD layers that their consumers do themselves

  const TfLiteTensor& tensor(int t) const { return context->tensors[t]; }
  const Layout& layout() const { return graph->kernels->layout; }

  static Shape shape_of(const TfLiteTensor& t) {
    const int* d = t.dims->data;
    return {d[0], d[1], d[2], d[3]};
  }

  size_t image_bytes(const Shape& s) const { return s.groups() * group_bytes(layout(), s.pixels()); }

  bool is_output(int t) const {
    for (int o : graph->outputs)
      if (o == t) return true;
    return false;
  }

  Step& add_step(StepKind kind, int a, int out, int layer) {
    Step step;
    memset((void*)&step, 0, sizeof step);
    step.kind = kind, step.a = a, step.b = -1, step.out = out, step.layer = layer;
    return graph->steps.push(step);
  }

  int add_value(int t, bool nhwc, const Shape& shape, bool external) {
    const size_t bytes = nhwc ? (size_t)elements(tensor(t)) : shape.images * image_bytes(shape);
    graph->values.push(Value{t, nhwc, external, shape, bytes, -1, -1, -1});
    return graph->values.size - 1;
  }

  // The chain form of a tensor in this shape; converted from NHWC where it does not exist yet.
  int chain(int t, const Shape& shape) {
    for (int i = 0; i < graph->values.size; i++)
      if (graph->values[i].tensor == t && !graph->values[i].nhwc && graph->values[i].shape == shape) return i;
    const int from = nhwc(t), to = add_value(t, false, shape, false);
    add_step(kFromNhwc, from, to, -1);
    return to;
  }

  // The NHWC form: the runtime's own for what comes from outside or goes there.
  int nhwc(int t) {
    int from = -1;
    for (int i = 0; i < graph->values.size; i++)
      if (graph->values[i].tensor == t) {
        if (graph->values[i].nhwc) return i;
        from = i;
      }
    const int to = add_value(t, true, Shape{}, from < 0 || is_output(t));
    if (from >= 0) add_step(kToNhwc, from, to, -1);
    return to;
  }

  // A layer's output in the chain; NHWC follows where somebody outside reads it.
  void finish(int t) {
    if (is_output(t)) nhwc(t);
  }

  Output output_of(const Layer& l) const {
    const TfLiteQuantizationParams& q = tensor(l.output).params;
    Output o{q.zero_point, -128, 127};
    auto quantized = [&](float real) {
      const float value = real / q.scale + (float)q.zero_point;
      return (int)lrintf(value < -128.0f ? -128.0f : value > 127.0f ? 127.0f : value);
    };
    if (l.activation == kRelu || l.activation == kRelu6) o.lowest = quantized(0.0f);
    if (l.activation == kReluN1To1) o.lowest = quantized(-1.0f), o.highest = quantized(1.0f);
    if (l.activation == kRelu6) o.highest = quantized(6.0f);
    return o;
  }

  // The same for average pools, which XNNPACK leaves to the runtime's own kernel: it rounds an activation's
  // limit before adding the zero point, halves away from zero.
  Output output_of_average(const Layer& l) const {
    const TfLiteQuantizationParams& q = tensor(l.output).params;
    Output o{q.zero_point, -128, 127};
    auto quantized = [&](float real) {
      const float value = roundf(real / q.scale) + (float)q.zero_point;
      return (int)(value < -128.0f ? -128.0f : value > 127.0f ? 127.0f : value);
    };
    if (l.activation == kRelu || l.activation == kRelu6) o.lowest = quantized(0.0f);
    if (l.activation == kReluN1To1) o.lowest = quantized(-1.0f), o.highest = quantized(1.0f);
    if (l.activation == kRelu6) o.highest = quantized(6.0f);
    return o;
  }

  // Scales of a layer's outputs, in single precision and in this order: as XNNPACK computes them.
  void scales_of(const Layer& l, int outputs, Array<float>* scales) const {
    const TfLiteTensor& w = tensor(l.weights);
    const TfLiteTensor& q = w.quantization.params || l.sparse_weights < 0 ? w : tensor(l.sparse_weights);
    const TfLiteFloatArray* s = ((const TfLiteAffineQuantization*)q.quantization.params)->scale;
    const float in = tensor(l.input).params.scale, out = tensor(l.output).params.scale;
    scales->resize(outputs);
    for (int i = 0; i < outputs; i++) (*scales)[i] = in * s->data[s->size == 1 ? 0 : i] / out;
  }

  const int32_t* biases_of(const Layer& l) const {
    return l.bias >= 0 ? (const int32_t*)tensor(l.bias).data : nullptr;
  }

  // Fills the spreads of a window and the distances of its taps, of `groups` groups that lie together.
  Padded* pad(const Window& w, int groups, uint32_t outside, Array<int32_t>* offsets) {
    Padded* p = (Padded*)own(graph, sizeof(Padded));
    const int reach_y = (w.kernel_height - 1) * w.dilation_height,
              reach_x = (w.kernel_width - 1) * w.dilation_width;
    p->pitch = w.out_width + reach_x / w.stride_width;
    p->rows = w.out_height + reach_y / w.stride_height;
    p->wide_pixels = (w.out_height - 1) * p->pitch + w.out_width;
    p->by_row =
        p->pitch != w.out_width && w.out_width % layout().vector == 0 && w.out_width / layout().vector >= 3;
    p->compacted = p->pitch != w.out_width && !p->by_row;
    p->plane = plane_bytes(layout(), p->rows * p->pitch);
    p->wide_plane = plane_bytes(layout(), p->wide_pixels);
    int phase_of[64];
    for (int i = 0; i < 64; i++) phase_of[i] = -1;
    offsets->clear();
    for (int ky = 0; ky < w.kernel_height; ky++)
      for (int kx = 0; kx < w.kernel_width; kx++) {
        const int y = ky * w.dilation_height, x = kx * w.dilation_width;
        const int fy = y % w.stride_height, fx = x % w.stride_width, f = fy * w.stride_width + fx;
        if (phase_of[f] < 0) {
          phase_of[f] = p->phases;
          p->spreads[p->phases++] = Spread{w.height,       w.width,    p->rows,     p->pitch, w.stride_height,
                                           w.stride_width, fy - w.top, fx - w.left, outside};
        }
        const size_t first = (size_t)phase_of[f] * groups * layout().planes * p->plane;
        offsets->push(
            (int32_t)(first + (size_t)((y / w.stride_height) * p->pitch + x / w.stride_width) * layout().unit));
      }
    return p;
  }

  // Where a convolution or pool reads, PAD before it included: its input tensor and window.
  int input_of(const Layer& l, Window* w) const {
    int t = l.input, top = -1, left = -1;
    for (const Layer& p : pads)
      if (p.output == l.input) t = p.input, top = p.pads[0], left = p.pads[2];
    const Shape in = shape_of(tensor(t)), out = shape_of(tensor(l.output));
    *w = Window{in.height,
                in.width,
                out.height,
                out.width,
                l.filter_height,
                l.filter_width,
                l.stride_height,
                l.stride_width,
                l.dilation_height,
                l.dilation_width,
                top,
                left};
    if (top < 0) {
      w->top = axis(l.padding, in.height, l.filter_height, l.stride_height, l.dilation_height).before;
      w->left = axis(l.padding, in.width, l.filter_width, l.stride_width, l.dilation_width).before;
    }
    return t;
  }

  void need_scratch(size_t bytes) {
    if (bytes > graph->scratch_bytes) graph->scratch_bytes = bytes;
  }

  bool convolution(int index) {
    const Layer& l = graph->layers[index];
    Window w;
    int t = l.input;
    Shape in, out;
    if (l.op == kFullyConnected) {
      const int depth = tensor(l.weights).dims->data[1], outputs = tensor(l.weights).dims->data[0];
      const int pixels = (int)(elements(tensor(l.input)) / depth);
      in = {1, 1, pixels, depth}, out = {1, 1, pixels, outputs};
      w = Window{1, pixels, 1, pixels, 1, 1, 1, 1, 1, 1, 0, 0};
    } else {
      t = input_of(l, &w);
      in = shape_of(tensor(t)), out = shape_of(tensor(l.output));
    }
    Array<int8_t> decoded;
    const int8_t* weights = weights_of(context, l, &decoded);
    if (!weights) return false;
    const int a = chain(t, in), o = add_value(l.output, false, out, false);
    Step step = add_step(w.trivial() ? kMultiply : kWindowed, a, o, index);
    Array<int32_t> offsets;
    size_t stride = group_bytes(layout(), in.pixels());
    const int zero = tensor(l.input).params.zero_point;
    if (w.trivial()) {
      offsets.push(0);
      step.matrix.in_plane = plane_bytes(layout(), in.pixels());
      step.matrix.out_plane = plane_bytes(layout(), out.pixels());
      step.matrix.pixels = out.pixels();
    } else {
      step.padded = pad(w, in.groups(), repeated(layout(), zero), &offsets);
      const Padded& p = *step.padded;
      stride = layout().planes * p.plane;
      step.matrix.in_plane = p.plane, step.matrix.pixels = p.by_row ? w.out_width : p.wide_pixels;
      step.matrix.out_plane = p.compacted ? p.wide_plane : plane_bytes(layout(), out.pixels());
      step.scratch = (size_t)p.phases * in.groups() * stride + kMargin;
      need_scratch(step.scratch + (p.compacted ? out.groups() * layout().planes * p.wide_plane : 0));
    }
    Array<float> scales;
    scales_of(l, out.channels, &scales);
    const Quantization q{scales.data, biases_of(l), zero, output_of(l)};
    const Taps taps{offsets.size, offsets.data, stride};
    const int block = choose_block(*graph->kernels, weights, out.channels, taps.count, in.channels);
    pack_matrix(graph, weights, out.channels, in.channels, taps, q, block, &step.matrix);
    graph->steps[graph->steps.size - 1] = step;
    finish(l.output);
    return true;
  }

  // Depthwise convolutions and pools: one group after the other.
  bool by_groups(int index, StepKind kind) {
    const Layer& l = graph->layers[index];
    Window w;
    const int t = input_of(l, &w);
    const Shape in = shape_of(tensor(t)), out = shape_of(tensor(l.output));
    const int a = chain(t, in), o = add_value(l.output, false, out, false);
    Step step = add_step(kind, a, o, index);
    Depthwise& d = step.depthwise;
    d.groups = in.groups(), d.height = w.height, d.width = w.width;
    d.out_height = w.out_height, d.out_width = w.out_width;
    d.kernel_height = w.kernel_height, d.kernel_width = w.kernel_width;
    d.stride_height = w.stride_height, d.stride_width = w.stride_width;
    d.dilation_height = w.dilation_height, d.dilation_width = w.dilation_width;
    d.pad_top = w.top, d.pad_left = w.left;
    const int zero = kind == kMaximum ? -128 : kind == kAverage ? 0 : tensor(l.input).params.zero_point;
    Array<int32_t> offsets;
    step.padded = pad(w, 1, repeated(layout(), zero), &offsets);
    const Padded& p = *step.padded;
    step.padded->compacted = p.pitch != w.out_width;
    d.in_plane = p.plane, d.pixels = p.wide_pixels;
    d.out_plane = p.compacted ? p.wide_plane : plane_bytes(layout(), out.pixels());
    const Taps taps{offsets.size, offsets.data, 0};
    if (kind == kDepthwise) {
      Array<int8_t> decoded;
      const int8_t* weights = weights_of(context, l, &decoded);
      if (!weights) return false;
      Array<float> scales;
      scales_of(l, out.channels, &scales);
      pack_depthwise(graph, weights, out.channels, taps,
                     Quantization{scales.data, biases_of(l), zero, output_of(l)}, &d);
    } else {
      int32_t* shifts = (int32_t*)own(graph, sizeof(int32_t) * (size_t)taps.count);
      memcpy(shifts, taps.offsets, sizeof(int32_t) * (size_t)taps.count);
      d.taps = taps.count, d.shifts = shifts;
      d.output = kind == kMaximum ? output_of(l) : output_of_average(l);
      if (kind == kAverage) d.counts = counts_of(w, p);
    }
    step.scratch = (size_t)p.phases * layout().planes * p.plane + 2 * kMargin;
    if (p.compacted) step.scratch += layout().planes * p.wide_plane + kMargin;
    size_t scratch = 0;
    if (kind == kDepthwise && graph->kernels->can_depthwise_direct) {
      Depthwise direct = d;
      direct.in_plane = plane_bytes(layout(), in.pixels()),
      direct.out_plane = plane_bytes(layout(), out.pixels());
      direct.pixels = out.pixels();
      if (graph->kernels->can_depthwise_direct(direct, &scratch)) {
        step.direct = true, step.scratch = scratch + kMargin;
        d = direct;
      }
    }
    step.scratch = (step.scratch + 63) / 64 * 64;
    need_scratch(step.scratch * part_count(graph->pool));
    graph->steps[graph->steps.size - 1] = step;
    finish(l.output);
    return true;
  }

  // The sizes of an average pool's windows without padding; 1 for what lies between the rows.
  const uint8_t* counts_of(const Window& w, const Padded& p) {
    uint8_t* counts = own(graph, (size_t)p.wide_pixels);
    const auto inside = [](int from, int kernel, int size) {
      return (from + kernel < size ? from + kernel : size) - (from > 0 ? from : 0);
    };
    memset(counts, 1, (size_t)p.wide_pixels);
    for (int y = 0; y < w.out_height; y++)
      for (int x = 0; x < w.out_width; x++)
        counts[y * p.pitch + x] = (uint8_t)(inside(y * w.stride_height - w.top, w.kernel_height, w.height) *
                                            inside(x * w.stride_width - w.left, w.kernel_width, w.width));
    return counts;
  }

  // XNNPACK's addition: 21-bit multipliers, the larger one in [2^20, 2^21).
  void addition(int index) {
    const Layer& l = graph->layers[index];
    const Shape shape = shape_of(tensor(l.output));
    const int a = chain(l.input, shape), b = chain(l.input2, shape),
              o = add_value(l.output, false, shape, false);
    Step step = add_step(kSum, a, o, index);
    step.b = b;
    const TfLiteQuantizationParams &qa = tensor(l.input).params, &qb = tensor(l.input2).params;
    const float out = tensor(l.output).params.scale, scale_a = qa.scale / out, scale_b = qb.scale / out;
    int exponent;
    frexpf(scale_a > scale_b ? scale_a : scale_b, &exponent);
    Addition& s = step.addition;
    s.shift = 20 - (exponent - 1);
    s.multiplier_a = (int32_t)lrintf(ldexpf(scale_a, s.shift));
    s.multiplier_b = (int32_t)lrintf(ldexpf(scale_b, s.shift));
    s.bias = (1 << (s.shift - 1)) - s.multiplier_a * qa.zero_point - s.multiplier_b * qb.zero_point;
    s.output = output_of(l);
    graph->steps[graph->steps.size - 1] = step;
    finish(l.output);
  }

  // A PAD is left to its consumers where all of them are windows without padding of their own.
  void padding(int index) {
    const Layer& l = graph->layers[index];
    bool folded = !is_output(l.output);
    for (const Layer& c : graph->layers) {
      if (c.input2 == l.output) folded = false;
      if (c.input != l.output) continue;
      if ((c.op != kConv2d && c.op != kDepthwiseConv2d) || c.padding != kValid) folded = false;
    }
    if (folded) {
      pads.push(l);
      return;
    }
    const Shape in = shape_of(tensor(l.input)), out = shape_of(tensor(l.output));
    const int a = chain(l.input, in), o = add_value(l.output, false, out, false);
    Step step = add_step(kPadding, a, o, index);
    step.padded = (Padded*)own(graph, sizeof(Padded));
    step.padded->phases = 1;
    step.padded->spreads[0] =
        Spread{in.height,  in.width,   out.height,
               out.width,  1,          1,
               -l.pads[0], -l.pads[2], repeated(layout(), tensor(l.input).params.zero_point)};
    graph->steps[graph->steps.size - 1] = step;
    finish(l.output);
  }

  // A rough estimate is enough: 100 multiplications, or 10 bytes that are moved, in a nanosecond.
  double work_of(const Step& s) const {
    const Value &a = graph->values[s.a], &out = graph->values[s.out];
    const Shape& shape = out.nhwc ? a.shape : out.shape;
    const double bytes = 4.0 * shape.groups() * shape.pixels();
    if (s.kind == kMultiply || s.kind == kWindowed)
      return 4.0 * s.matrix.block * s.matrix.starts[s.matrix.rows / s.matrix.block] * shape.pixels() / 100 +
             bytes / 10;
    if (s.kind == kDepthwise || s.kind == kMaximum || s.kind == kAverage)
      return bytes * (s.depthwise.taps + 4) / 50;
    return bytes / 10;
  }
};

}  // namespace

bool build_graph(TfLiteContext* context, Graph* graph) {
  clear_graph(graph);
  Builder b{context, graph, {}};
  for (int i = 0; i < graph->layers.size; i++) {
    bool good = true;
    switch (graph->layers[i].op) {
      case kConv2d:
      case kFullyConnected: good = b.convolution(i); break;
      case kDepthwiseConv2d: good = b.by_groups(i, kDepthwise); break;
      case kMaxPool: good = b.by_groups(i, kMaximum); break;
      case kAveragePool: good = b.by_groups(i, kAverage); break;
      case kAdd: b.addition(i); break;
      default: b.padding(i);
    }
    if (!good) return false;
  }
  place_values(graph);
  for (Step& s : graph->steps) s.work = b.work_of(s);
  return true;
}

}  // namespace edgesparse
