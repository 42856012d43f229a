// Shapes of a partition's tensors after its inputs were resized. The runtime may do it itself (it does before
// the first run), but not for tensors whose shape is known only while the model runs.
// flags: -O2
#include <stdlib.h>

#include "graph.h"

namespace edgesparse {
namespace {

const int kTooLarge = -1;  // for a rank: beyond what the layer was checked for when it was claimed

// The shape of a layer's output, from that of its input and the weights.
// Returns: the rank; 0 where the input does not fit the layer; or kTooLarge.
int output_dims(TfLiteContext* context, const Layer& l, int* dims) {
  const TfLiteTensor& x = context->tensors[l.input];
  const TfLiteTensor& y = context->tensors[l.output];
  const int rank = x.dims->size;
  int64_t n = 1;
  for (int i = 0; i < rank; i++) {
    if (x.dims->data[i] < 1) return 0;
    n *= x.dims->data[i];
  }
  if (n >= kMostElements) return kTooLarge;
  if (l.op == kFullyConnected) {
    const int* w = context->tensors[l.weights].dims->data;
    if (n % w[1]) return 0;
    if (n / w[1] * w[0] >= kMostElements) return kTooLarge;
    if (y.dims->size == rank && x.dims->data[rank - 1] == w[1]) {
      for (int i = 0; i < rank; i++) dims[i] = x.dims->data[i];
      dims[rank - 1] = w[0];
      return rank;
    }
    dims[0] = (int)(n / w[1]), dims[1] = w[0];
    return 2;
  }
  if (rank != 4) return 0;
  for (int i = 0; i < 4; i++) dims[i] = x.dims->data[i];
  if (l.op == kAdd) {
    const TfLiteTensor& other = context->tensors[l.input2];
    if (other.dims->size != 4) return 0;
    for (int i = 0; i < 4; i++)
      if (other.dims->data[i] != dims[i]) return 0;
    return 4;
  }
  if (l.op == kPad) {
    dims[1] += l.pads[0] + l.pads[1], dims[2] += l.pads[2] + l.pads[3];
  } else {
    if (padded_bytes(l, dims) >= kMostPadded) return kTooLarge;
    dims[1] = axis(l.padding, dims[1], l.filter_height, l.stride_height, l.dilation_height).out;
    dims[2] = axis(l.padding, dims[2], l.filter_width, l.stride_width, l.dilation_width).out;
    if (l.op == kConv2d || l.op == kDepthwiseConv2d) {
      const int* w = context->tensors[l.weights].dims->data;
      if (w[3] != dims[3]) return 0;
      if (l.op == kConv2d) dims[3] = w[0];
    }
  }
  if (dims[1] < 1 || dims[2] < 1) return 0;
  return (int64_t)dims[0] * dims[1] * dims[2] * dims[3] < kMostElements ? 4 : kTooLarge;
}

}  // namespace

const char* propagate_shapes(TfLiteContext* context, const Graph& graph) {
  for (const Layer& l : graph.layers) {
    int dims[8];
    const int rank = output_dims(context, l, dims);
    if (rank == kTooLarge) return "an input is too large for the delegate";
    if (!rank) return "the shape of an input does not fit its node";
    TfLiteTensor* y = &context->tensors[l.output];
    if (y->dims->size == rank && !memcmp(y->dims->data, dims, sizeof(int) * (size_t)rank)) continue;
    auto* shape = (TfLiteIntArray*)malloc(sizeof(int) * ((size_t)rank + 1));  // the runtime frees it
    if (!shape) return "no memory";
    shape->size = rank;
    memcpy(shape->data, dims, sizeof(int) * (size_t)rank);
    if (context->ResizeTensor(context, y, shape)) return "an output cannot be resized";
  }
  return nullptr;
}

}  // namespace edgesparse
