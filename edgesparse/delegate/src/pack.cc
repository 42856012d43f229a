// Weights as the kernels read them.
// flags: -O2
#include <math.h>

#include "graph.h"

namespace edgesparse {
namespace {

int largest_stored(const Layout& layout) { return layout.offset ? 255 : 128; }

// Scales and biases of `rows` rows, of which the first `outputs` exist; sums[o]: of an output's weights.
struct Rows {
  const float* scale;
  const int32_t* bias;
  double bound, result_bound;
};

Rows fold(Graph* graph, int rows, int outputs, const Quantization& q, const int64_t* sums,
          const int64_t* magnitudes) {
  const Layout& layout = graph->kernels->layout;
  float* scale = (float*)own(graph, sizeof(float) * (size_t)rows + 64);
  int32_t* bias = (int32_t*)own(graph, sizeof(int32_t) * (size_t)rows + 64);
  Rows r{scale, bias, 0, 0};
  for (int o = 0; o < outputs; o++) {
    scale[o] = q.scales[o];
    bias[o] = (int32_t)((q.biases ? q.biases[o] : 0) - sums[o] * (q.in_zero_point + layout.offset));
    const double bound = fabs((double)bias[o]) + (double)magnitudes[o] * largest_stored(layout);
    r.bound = bound > r.bound ? bound : r.bound;
    r.result_bound = bound * scale[o] > r.result_bound ? bound * scale[o] : r.result_bound;
  }
  return r;
}

// Whether a block of `block` rows from `row` and four inputs has a weight.
bool occupied(const int8_t* weights, int outputs, size_t inner, int row, int block, size_t at, int inputs) {
  for (int r = row; r < row + block && r < outputs; r++)
    for (int c = 0; c < inputs; c++)
      if (weights[(size_t)r * inner + at + c]) return true;
  return false;
}

}  // namespace

int choose_block(const Kernels& kernels, const int8_t* weights, int outputs, int taps, int channels) {
  const size_t inner = (size_t)taps * channels;
  float best = 0;
  int choice = 0;
  for (int log = 0; log < 3 && 1 << log <= kernels.max_block; log++) {
    const int block = 1 << log;
    int64_t blocks = 0;
    for (int row = 0; row < outputs; row += block)
      for (int t = 0; t < taps; t++)
        for (int c = 0; c < channels; c += 4)
          blocks += occupied(weights, outputs, inner, row, block, (size_t)t * channels + c,
                             channels - c < 4 ? channels - c : 4);
    const float cost = (float)blocks * kernels.cost[log];
    if (!choice || cost < best) best = cost, choice = block;
  }
  return choice;
}

void pack_matrix(Graph* graph, const int8_t* weights, int outputs, int channels, const Taps& taps,
                 const Quantization& q, int block, Matrix* m) {
  const Layout& layout = graph->kernels->layout;
  const size_t inner = (size_t)taps.count * channels;
  const int rows = (outputs + 3) / 4 * 4, groups = (channels + 3) / 4;
  Array<int32_t> starts, offsets;
  Array<int8_t> values;
  starts.push(0);
  for (int row = 0; row < rows; row += block) {
    for (int t = 0; t < taps.count; t++)
      for (int g = 0; g < groups; g++) {
        const size_t at = (size_t)t * channels + g * 4;
        const int inputs = channels - g * 4 < 4 ? channels - g * 4 : 4;
        if (!occupied(weights, outputs, inner, row, block, at, inputs)) continue;
        offsets.push((int32_t)(taps.offsets[t] + (int64_t)g * taps.group_stride));
        for (int r = row; r < row + block; r++)
          for (int c = 0; c < 4; c++)
            values.push(r < outputs && c < inputs ? weights[(size_t)r * inner + at + c] : 0);
      }
    starts.push(offsets.size);
  }

  Array<int64_t> sums, magnitudes;
  sums.resize(rows), magnitudes.resize(rows);
  for (int o = 0; o < outputs; o++)
    for (size_t i = 0; i < inner; i++) {
      const int w = weights[o * inner + i];
      sums[o] += w, magnitudes[o] += w < 0 ? -w : w;
      m->lowest_weight |= w == -128;
    }
  const Rows folded = fold(graph, rows, outputs, q, sums.data, magnitudes.data);

  const size_t width = (size_t)layout.element;
  uint8_t* packed = own(graph, (size_t)values.size * width);
  for (int i = 0; i < values.size; i++) {
    if (width == 2)
      ((int16_t*)packed)[i] = values[i];
    else
      ((int8_t*)packed)[i] = values[i];
  }
  int32_t* packed_offsets = (int32_t*)own(graph, sizeof(int32_t) * (size_t)offsets.size);
  if (offsets.size) memcpy(packed_offsets, offsets.data, sizeof(int32_t) * (size_t)offsets.size);
  int32_t* packed_starts = (int32_t*)own(graph, sizeof(int32_t) * (size_t)starts.size);
  memcpy(packed_starts, starts.data, sizeof(int32_t) * (size_t)starts.size);
  m->rows = rows, m->block = block;
  m->starts = packed_starts, m->offsets = packed_offsets, m->weights = packed;
  m->scale = folded.scale, m->bias = folded.bias, m->bound = folded.bound,
  m->result_bound = folded.result_bound;
  m->output = q.output;
}

void pack_depthwise(Graph* graph, const int8_t* weights, int channels, const Taps& taps, const Quantization& q,
                    Depthwise* d) {
  const int groups = (channels + 3) / 4, rows = groups * 4;
  Array<int64_t> sums, magnitudes;
  sums.resize(rows), magnitudes.resize(rows);
  int8_t* packed = (int8_t*)own(graph, (size_t)rows * taps.count);
  for (int t = 0; t < taps.count; t++)
    for (int c = 0; c < channels; c++) {
      const int w = weights[(size_t)t * channels + c];
      packed[((size_t)(c / 4) * taps.count + t) * 4 + c % 4] = (int8_t)w;
      sums[c] += w, magnitudes[c] += w < 0 ? -w : w;
      d->lowest_weight |= w == -128;
    }
  int32_t* shifts = (int32_t*)own(graph, sizeof(int32_t) * (size_t)taps.count);
  memcpy(shifts, taps.offsets, sizeof(int32_t) * (size_t)taps.count);
  const Rows folded = fold(graph, rows, channels, q, sums.data, magnitudes.data);
  d->taps = taps.count, d->shifts = shifts, d->weights = packed, d->groups = groups;
  d->scale = folded.scale, d->bias = folded.bias, d->bound = folded.bound,
  d->result_bound = folded.result_bound;
  d->output = q.output, d->in_zero_point = q.in_zero_point;
  if (graph->kernels->pack_depthwise) {
    uint8_t* memory = own(graph, graph->kernels->packed_depthwise_bytes(*d));
    graph->kernels->pack_depthwise(*d, memory);
    d->packed = memory;
  }
}

}  // namespace edgesparse
