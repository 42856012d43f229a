// Which nodes the delegate can run, and why it leaves the others.
// flags: -O2
#include <math.h>

#include "graph.h"

namespace edgesparse {
namespace {

const char* check_activation_tensor(const TfLiteTensor& t, int rank) {
  if (t.type != kInt8) return "not int8";
  if (t.allocation_type == kDynamic) return "dynamic shape";
  if (t.is_variable) return "a variable";
  if (!t.dims || t.dims->size != rank) return "unexpected rank";
  for (int i = 0; i < rank; i++)
    if (t.dims->data[i] < 1) return "dimension without elements";
  if (elements(t) >= kMostElements) return "too large";
  if (!(t.params.scale > 0) || !isfinite(t.params.scale)) return "no scale";
  if (t.params.zero_point < -128 || t.params.zero_point > 127) return "zero point out of range";
  return nullptr;
}

// Weights of `rank` dimensions, one scale or as many as outputs along `dimension`.
const char* check_weights(TfLiteContext* context, const Array<Densify>& densify, int rank, int dimension,
                          Layer* l) {
  const TfLiteTensor& w = context->tensors[l->weights];
  if (w.type != kInt8) return "weights are not int8";
  if (!w.dims || w.dims->size != rank) return "unexpected rank of weights";
  for (int i = 0; i < rank; i++)
    if (w.dims->data[i] < 1) return "weights without elements";
  if (elements(w) >= (int64_t)1 << 26) return "too many weights";
  if (!is_constant(w)) {
    for (const Densify& d : densify)
      if (d.output == l->weights) l->sparse_weights = d.input;
    if (l->sparse_weights < 0) return "weights are not constant";
    const TfLiteTensor& s = context->tensors[l->sparse_weights];
    if (s.type != kInt8 || !s.dims || elements(s) != elements(w)) return "weights are not constant";
  }
  const TfLiteTensor& q =
      w.quantization.params || l->sparse_weights < 0 ? w : context->tensors[l->sparse_weights];
  const auto* affine = (const TfLiteAffineQuantization*)q.quantization.params;
  if (q.quantization.type != 1 || !affine || !affine->scale) return "weights without scales";
  const int scales = affine->scale->size;
  if (scales != 1 && (scales != w.dims->data[dimension] || affine->quantized_dimension != dimension))
    return "scales of another dimension";
  for (int i = 0; i < scales; i++)
    if (!(affine->scale->data[i] > 0) || !isfinite(affine->scale->data[i]))
      return "a scale of weights is not positive";
  if (affine->zero_point)
    for (int i = 0; i < affine->zero_point->size; i++)
      if (affine->zero_point->data[i]) return "weights with a zero point";

  Array<int8_t> decoded;
  const int8_t* data = weights_of(context, *l, &decoded);
  if (!data) return "damaged weights";
  int64_t zeros = 0;
  const int64_t n = elements(w);
  for (int64_t i = 0; i < n; i++) zeros += data[i] == 0;
  l->zeros = (double)zeros / (double)n;

  const TfLiteTensor &x = context->tensors[l->input], &y = context->tensors[l->output];
  if (l->bias >= 0) {
    const TfLiteTensor& b = context->tensors[l->bias];
    if (b.type != kInt32 || !is_constant(b)) return "bias is not constant int32";
    if (elements(b) != w.dims->data[dimension] || b.bytes < (size_t)elements(b) * 4)
      return "unexpected size of bias";
  }
  // The accumulator must fit 32 bits and the scaled one an int, whatever the input (see kernels.h).
  const int outputs = w.dims->data[dimension];
  const int64_t inner = dimension == 0 ? n / outputs : 1, step = dimension == 0 ? 1 : outputs;
  const int64_t count = n / outputs;
  for (int o = 0; o < outputs; o++) {
    double sum = l->bias >= 0 ? fabs((double)((const int32_t*)context->tensors[l->bias].data)[o]) : 0;
    for (int64_t i = 0; i < count; i++) sum += 512.0 * abs(data[(int64_t)o * inner + i * step]);
    const float scale = x.params.scale * affine->scale->data[scales == 1 ? 0 : o] / y.params.scale;
    if (sum >= 2147483647.0) return "accumulator may overflow";
    if (!(scale > 0) || scale >= 256.0f || sum * scale >= 1073741824.0) return "scale out of range";
  }
  return nullptr;
}

const char* describe_convolution(TfLiteContext* context, const TfLiteNode* node, const Array<Densify>& densify,
                                 Layer* l) {
  const TfLiteTensor &x = context->tensors[l->input], &w = context->tensors[l->weights],
                     &y = context->tensors[l->output];
  const char* why = check_activation_tensor(x, 4);
  if (why || (why = check_activation_tensor(y, 4))) return why;
  const bool depthwise = l->op == kDepthwiseConv2d;
  if (depthwise) {
    const auto* p = (const TfLiteDepthwiseConvParams*)node->builtin_data;
    l->padding = (Padding)p->padding;
    l->stride_height = p->stride_height, l->stride_width = p->stride_width;
    l->dilation_height = p->dilation_height_factor, l->dilation_width = p->dilation_width_factor;
    l->activation = (Activation)p->activation;
  } else {
    const auto* p = (const TfLiteConvParams*)node->builtin_data;
    l->padding = (Padding)p->padding;
    l->stride_height = p->stride_height, l->stride_width = p->stride_width;
    l->dilation_height = p->dilation_height_factor, l->dilation_width = p->dilation_width_factor;
    l->activation = (Activation)p->activation;
  }
  if ((why = check_weights(context, densify, 4, depthwise ? 3 : 0, l))) return why;
  const int channels = x.dims->data[3], outputs = y.dims->data[3];
  if (depthwise && (w.dims->data[0] != 1 || w.dims->data[3] != channels))
    return "depth multiplier other than 1";
  if (!depthwise && w.dims->data[3] != channels) return "grouped convolution";
  if (outputs != w.dims->data[depthwise ? 3 : 0] || y.dims->data[0] != x.dims->data[0])
    return "unexpected shape";
  l->filter_height = w.dims->data[1], l->filter_width = w.dims->data[2];
  return nullptr;
}

const char* check_window(TfLiteContext* context, const Layer& l) {
  const TfLiteTensor &x = context->tensors[l.input], &y = context->tensors[l.output];
  if (l.padding != kSame && l.padding != kValid) return "unknown padding";
  if (l.stride_height < 1 || l.stride_width < 1 || l.stride_height > 8 || l.stride_width > 8)
    return "stride over 8";
  if (l.dilation_height < 1 || l.dilation_width < 1 || l.dilation_height > 64 || l.dilation_width > 64)
    return "dilation over 64";
  if (l.filter_height < 1 || l.filter_width < 1 || l.filter_height > 15 || l.filter_width > 15)
    return "window over 15";
  const bool trivial = l.filter_height == 1 && l.filter_width == 1;
  for (int i = 0; i < 2; i++) {
    const int reach = i ? (l.filter_width - 1) * l.dilation_width : (l.filter_height - 1) * l.dilation_height;
    const int stride = i ? l.stride_width : l.stride_height, in = x.dims->data[1 + i];
    if (reach > 64) return "window over 64 pixels";
    // The last window ends before the input does: XNNPACK and the reference kernels answer differently.
    if (l.padding == kSame && !trivial && ((in + stride - 1) / stride - 1) * stride + reach + 1 < in)
      return "stride beyond the window with SAME padding";
    const Axis a = axis(l.padding, x.dims->data[1 + i], i ? l.filter_width : l.filter_height,
                        i ? l.stride_width : l.stride_height, i ? l.dilation_width : l.dilation_height);
    if (a.out < 1 || a.out != y.dims->data[1 + i]) return "unexpected shape of output";
  }
  return padded_bytes(l, x.dims->data) < kMostPadded ? nullptr : "too large";
}

const char* describe_fully_connected(TfLiteContext* context, const TfLiteNode* node,
                                     const Array<Densify>& densify, Layer* l) {
  const TfLiteTensor &x = context->tensors[l->input], &w = context->tensors[l->weights],
                     &y = context->tensors[l->output];
  const auto* p = (const TfLiteFullyConnectedParams*)node->builtin_data;
  if (!x.dims || x.dims->size < 1 || x.dims->size > 4) return "unexpected rank";
  if (!y.dims || y.dims->size < 1 || y.dims->size > 4) return "unexpected rank";
  const char* why = check_activation_tensor(x, x.dims->size);
  if (why || (why = check_activation_tensor(y, y.dims->size))) return why;
  if (p->weights_format != 0) return "shuffled weights";
  l->activation = (Activation)p->activation;
  if ((why = check_weights(context, densify, 2, 0, l))) return why;
  if (elements(x) % w.dims->data[1]) return "unexpected shape";
  if (elements(y) != elements(x) / w.dims->data[1] * w.dims->data[0]) return "unexpected shape";
  return nullptr;
}

const char* describe_add(TfLiteContext* context, const TfLiteNode* node, Layer* l) {
  const TfLiteTensor &a = context->tensors[l->input], &b = context->tensors[l->input2],
                     &y = context->tensors[l->output];
  const char* why = check_activation_tensor(a, 4);
  if (why || (why = check_activation_tensor(b, 4)) || (why = check_activation_tensor(y, 4))) return why;
  if (is_constant(a) || is_constant(b)) return "constant operand";
  for (int i = 0; i < 4; i++)
    if (a.dims->data[i] != y.dims->data[i] || b.dims->data[i] != y.dims->data[i]) return "broadcast";
  const float ratio_a = a.params.scale / y.params.scale, ratio_b = b.params.scale / y.params.scale;
  if (!(ratio_a >= 1.0f / 1024 && ratio_a < 256 && ratio_b >= 1.0f / 1024 && ratio_b < 256))
    return "scale out of range";
  l->activation = (Activation)((const TfLiteAddParams*)node->builtin_data)->activation;
  return nullptr;
}

const char* describe_pad(TfLiteContext* context, Layer* l) {
  const TfLiteTensor &x = context->tensors[l->input], &y = context->tensors[l->output];
  const char* why = check_activation_tensor(x, 4);
  if (why || (why = check_activation_tensor(y, 4))) return why;
  const TfLiteTensor& p = context->tensors[l->input2];
  l->input2 = -1;
  if (!is_constant(p) || (p.type != kInt32 && p.type != kInt64) || elements(p) != 8)
    return "paddings are not constant";
  if (p.bytes < (p.type == kInt64 ? 64u : 32u)) return "paddings are not constant";
  if (x.params.scale != y.params.scale || x.params.zero_point != y.params.zero_point)
    return "another quantization";
  int64_t pads[8];
  for (int i = 0; i < 8; i++)
    pads[i] = p.type == kInt64 ? ((const int64_t*)p.data)[i] : ((const int32_t*)p.data)[i];
  if (pads[0] || pads[1] || pads[6] || pads[7]) return "padded batch or channels";
  for (int i = 0; i < 4; i++) {
    if (pads[2 + i] < 0 || pads[2 + i] > 4096) return "unexpected paddings";
    l->pads[i] = (int)pads[2 + i];
  }
  if (x.dims->data[1] + l->pads[0] + l->pads[1] != y.dims->data[1] ||
      x.dims->data[2] + l->pads[2] + l->pads[3] != y.dims->data[2] || x.dims->data[0] != y.dims->data[0] ||
      x.dims->data[3] != y.dims->data[3])
    return "unexpected shape of output";
  return nullptr;
}

const char* describe_pool(TfLiteContext* context, const TfLiteNode* node, Layer* l) {
  const TfLiteTensor &x = context->tensors[l->input], &y = context->tensors[l->output];
  const char* why = check_activation_tensor(x, 4);
  if (why || (why = check_activation_tensor(y, 4))) return why;
  if (x.params.scale != y.params.scale || x.params.zero_point != y.params.zero_point)
    return "another quantization";
  if (x.dims->data[0] != y.dims->data[0] || x.dims->data[3] != y.dims->data[3]) return "unexpected shape";
  const auto* p = (const TfLitePoolParams*)node->builtin_data;
  l->padding = (Padding)p->padding;
  l->stride_height = p->stride_height, l->stride_width = p->stride_width;
  l->filter_height = p->filter_height, l->filter_width = p->filter_width;
  l->activation = (Activation)p->activation;
  return nullptr;
}

}  // namespace

const char* operator_name(int code) {
  switch (code) {
    case kAdd: return "ADD";
    case kAveragePool: return "AVERAGE_POOL_2D";
    case kConv2d: return "CONV_2D";
    case kDepthwiseConv2d: return "DEPTHWISE_CONV_2D";
    case kFullyConnected: return "FULLY_CONNECTED";
    case kMaxPool: return "MAX_POOL_2D";
    case kPad: return "PAD";
    case kDensify: return "DENSIFY";
    default: return nullptr;
  }
}

const char* describe(TfLiteContext* context, int index, const TfLiteNode* node,
                     const TfLiteRegistration* registration, const Array<Densify>& densify,
                     const Kernels& kernels, Layer* l) {
  const int code = registration->builtin_code;
  *l = Layer{index, (Operator)code, -1,           -1, -1, -1, -1, -1, kValid, 1, 1, 1, 1, 1,
             1,     kNone,          {0, 0, 0, 0}, 0,  0,  0};
  const bool convolution = code == kConv2d || code == kDepthwiseConv2d || code == kFullyConnected;
  const bool pool = code == kMaxPool || code == kAveragePool;
  if (!convolution && !pool && code != kAdd && code != kPad) return "operator not supported";
  const int inputs = pool ? 1 : 2;
  if (!node->inputs || !node->outputs || node->inputs->size < inputs || node->outputs->size != 1)
    return "unexpected number of inputs";
  if (!node->builtin_data && code != kPad) return "no parameters";
  const int tensors = (int)context->tensors_size;
  for (int i = 0; i < node->inputs->size; i++) {
    const int t = node->inputs->data[i];
    if (t >= tensors || (t < 0 && !(convolution && i == 2))) return "missing input";
  }
  l->input = node->inputs->data[0];
  l->output = node->outputs->data[0];
  if (l->output < 0 || l->output >= tensors) return "missing output";
  const char* why;
  if (convolution) {
    l->weights = node->inputs->data[1];
    l->bias = node->inputs->size > 2 ? node->inputs->data[2] : -1;
    why = code == kFullyConnected ? describe_fully_connected(context, node, densify, l)
                                  : describe_convolution(context, node, densify, l);
    if (!why && code != kFullyConnected) why = check_window(context, *l);
  } else {
    if (inputs > 1) l->input2 = node->inputs->data[1];
    why = code == kAdd   ? describe_add(context, node, l)
          : code == kPad ? describe_pad(context, l)
                         : describe_pool(context, node, l);
    if (!why && pool) why = check_window(context, *l);
  }
  if (!why && (l->activation < kNone || l->activation > kRelu6)) why = "activation not supported";
  if (!why) {
    const TfLiteTensor& y = context->tensors[l->output];
    const int* d = y.dims->data;
    l->pixels =
        code == kFullyConnected ? (int)(elements(y) / context->tensors[l->weights].dims->data[0]) : d[1] * d[2];
  }
  if (!why && is_convolution(*l)) {
    Array<int8_t> decoded;
    const TfLiteIntArray* d = context->tensors[l->weights].dims;
    const int taps = d->size == 4 ? d->data[1] * d->data[2] : 1;
    l->block = choose_block(kernels, weights_of(context, *l, &decoded), d->data[0], taps, d->data[d->size - 1]);
  }
  return why;
}

}  // namespace edgesparse
