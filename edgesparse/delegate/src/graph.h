// A partition of the model's graph that the delegate runs: layers, the steps that they became, their buffers.
#pragma once

#include "layers.h"
#include "threads.h"

namespace edgesparse {

// A tensor in the chain: `images` images one after the other, each of groups() groups.
struct Shape {
  int images, height, width, channels;
  int pixels() const { return height * width; }
  int groups() const { return (channels + 3) / 4; }
  bool operator==(const Shape& o) const {
    return images == o.images && height == o.height && width == o.width && channels == o.channels;
  }
};

// A tensor in one of its forms. External ones are the runtime's (always NHWC), the others live in slots.
struct Value {
  int tensor;
  bool nhwc, external;
  Shape shape;
  size_t bytes;
  int first, last;  // steps that write it and read it last
  int slot;
};

// A convolution's window over its input, with padding before the first pixel.
struct Window {
  int height, width, out_height, out_width;
  int kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
  int top, left;
  bool trivial() const {  // each output pixel is made from the input pixel with the same number
    return kernel_height == 1 && kernel_width == 1 && stride_height == 1 && stride_width == 1 && !top &&
           !left && height == out_height && width == out_width;
  }
};

// The padded copy of a tensor that a window reads: a plane for each phase of the stride, so that every tap
// is a fixed distance. Outputs come in rows of `pitch` pixels, of which out_width count.
struct Padded {
  int pitch, rows, phases;
  int wide_pixels;  // outputs, with those between the rows
  bool by_row;      // a row is some whole vectors: outputs are made row by row, without any between them
  bool compacted;   // else all at once into scratch, from which those that count are copied
  size_t plane;     // of a phase
  size_t wide_plane;
  Spread spreads[64];
};

enum StepKind { kFromNhwc, kToNhwc, kMultiply, kWindowed, kDepthwise, kMaximum, kAverage, kSum, kPadding };

struct Step {
  StepKind kind;
  int a, b, out;  // values
  int layer;
  Matrix matrix;
  Depthwise depthwise;
  bool direct;  // depthwise without a padded copy
  Addition addition;
  Padded* padded;
  double work;     // about nanoseconds on one core
  size_t scratch;  // bytes for each thread (depthwise, pools) or in all (windowed)
};

struct Slot {
  size_t bytes;
  uint8_t* data;
  bool used;
};

struct Graph {
  const Kernels* kernels;
  bool verbose;
  Array<Layer> layers;  // in the order of execution
  Array<int> outputs;   // tensors that the runtime or other partitions read
  Array<Value> values;
  Array<Step> steps;
  Array<Slot> slots;
  Array<uint8_t*> owned;  // packed weights and what else steps point to
  Array<int> dims;        // of all inputs and outputs when it was built
  uint8_t* scratch;
  size_t scratch_bytes;
  Pool* pool;
};

// Gives all outputs of layers the shapes that follow from the inputs.
// Returns: null, or why not.
const char* propagate_shapes(TfLiteContext*, const Graph&);

// Makes steps of all layers for the current shapes. Layers were checked by describe().
// Returns: false where a layer's weights can no longer be read.
bool build_graph(TfLiteContext*, Graph*);
void run_graph(TfLiteContext*, Graph*);
void clear_graph(Graph*);  // steps and buffers; layers stay
// Gives all values of the steps their buffers, and the graph its scratch memory.
void place_values(Graph*);

// `bytes` zeroed bytes that live as long as the steps.
uint8_t* own(Graph*, size_t bytes);

// How inputs and weights lie: which tap of the kernel is how far from the first one.
struct Taps {
  int count;
  const int32_t* offsets;  // bytes
  size_t group_stride;     // bytes from a group of four channels to the next one
};

struct Quantization {
  const float* scales;    // [outputs], input * weights / output
  const int32_t* biases;  // [outputs] or null
  int in_zero_point;
  Output output;
};

// The cheapest number of rows of a block: [outputs][taps * channels] int8 weights.
int choose_block(const Kernels&, const int8_t* weights, int outputs, int taps, int channels);
// Packs a convolution's weights; fills all of *matrix but the planes and the pixels.
void pack_matrix(Graph*, const int8_t* weights, int outputs, int channels, const Taps&, const Quantization&,
                 int block, Matrix* matrix);
// The same for depthwise weights [taps][channels].
void pack_depthwise(Graph*, const int8_t* weights, int channels, const Taps&, const Quantization&, Depthwise*);

}  // namespace edgesparse
