// What the graph knows of a node: everything that is needed to build it again when the input was resized.
#pragma once

#include "abi.h"
#include "memory.h"

namespace edgesparse {

// Of a tensor: offsets are 32 bits, and padded copies of int16 must not exceed them.
const int64_t kMostElements = (int64_t)1 << 26;

struct Options {
  char isa[16];
  double min_zeros = -1;  // share of zeros from which a node counts as sparse; negative: by the CPU
  int dense = 0;  // nodes with fewer zeros: 0 auto (where connected to sparse ones), 1 always, -1 never
  bool verbose = false, report = false;
};

// One node that the delegate can run. Indices are those of the context's tensors; -1: none.
struct Layer {
  int node;
  Operator op;
  int input, input2, output, weights, bias;
  int sparse_weights;  // the tensor that a DENSIFY decodes to `weights`, or -1
  Padding padding;
  int stride_height, stride_width, dilation_height, dilation_width;
  int filter_height, filter_width;
  Activation activation;
  int pads[4];   // of PAD: top, bottom, left, right
  double zeros;  // share of the weights
  int pixels;    // of an output image, or rows of a fully connected layer
  int block;     // rows of a block, for reports
};

// Which DENSIFY makes a tensor.
struct Densify {
  int node, input, output;
};

// Describes a node of the graph.
// Returns: null when *layer was filled, else the reason why the delegate leaves the node to the runtime.
const char* describe(TfLiteContext*, int node, const TfLiteNode*, const TfLiteRegistration*,
                     const Array<Densify>&, const Kernels&, Layer* layer);

const char* operator_name(int builtin_code);

// The weights of a layer as dense int8 values in their original order.
// Returns: the tensor's own memory, or *decoded filled from a sparse tensor; null where they are not constant.
const int8_t* weights_of(TfLiteContext*, const Layer&, Array<int8_t>* decoded);

// Whether a sparse tensor's metadata are consistent with its shape and size; files come from anywhere.
bool decode_sparse(const TfLiteTensor&, Array<int8_t>* decoded);

inline bool is_constant(const TfLiteTensor& t) { return t.allocation_type == kMmapRo && t.data; }
inline bool is_convolution(const Layer& l) { return l.op == kConv2d || l.op == kFullyConnected; }

inline int64_t elements(const TfLiteTensor& t) {
  int64_t n = 1;
  for (int i = 0; i < t.dims->size; i++) n *= t.dims->data[i];
  return n;
}

// Output size and padding before the first pixel along one axis, as TFLite computes them.
struct Axis {
  int out, before;
};
inline Axis axis(Padding padding, int in, int filter, int stride, int dilation) {
  const int reach = (filter - 1) * dilation + 1;
  if (padding == kValid) return {(in - reach + stride) / stride, 0};
  const int out = (in + stride - 1) / stride, missing = (out - 1) * stride + reach - in;
  return {out, missing > 0 ? missing / 2 : 0};
}

// Bytes of the padded copy that a window reads of an input [images, height, width, channels], at most.
inline double padded_bytes(const Layer& l, const int* dims) {
  const double reach_y = (l.filter_height - 1.0) * l.dilation_height,
               reach_x = (l.filter_width - 1.0) * l.dilation_width;
  return 8.0 * ((dims[3] + 3) / 4) * l.stride_height * l.stride_width *
         ((dims[1] + 2 * reach_y) / l.stride_height + 1) * ((dims[2] + 2 * reach_x) / l.stride_width + 1);
}
const double kMostPadded = 1 << 30;

}  // namespace edgesparse
