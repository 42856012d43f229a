// The part of TFLite's C interface that a delegate needs, written by hand.
//
// Only the prefix of each struct that has kept its order from TFLite 2.11 to LiteRT 2.x. The runtime's own
// headers differ between versions and would tie the library to one of them; these serve all of them, on
// both architectures. TfLiteRegistration is the exception: it is passed by value and has grown at its end,
// so a caller passes the longest one, zero-filled, which every version reads correctly.
#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {

typedef int TfLiteStatus;  // 0: ok, 1: error
enum { kTfLiteOk = 0, kTfLiteError = 1 };

struct TfLiteContext;
struct TfLiteDelegate;

struct TfLiteIntArray {
  int size;
  int data[];
};
struct TfLiteFloatArray {
  int size;
  float data[];
};
struct TfLiteQuantizationParams {
  float scale;
  int32_t zero_point;
};
struct TfLiteAffineQuantization {
  TfLiteFloatArray* scale;
  TfLiteIntArray* zero_point;
  int32_t quantized_dimension;
};
struct TfLiteQuantization {
  int type;  // 1: affine
  void* params;
};
struct TfLiteDimensionMetadata {
  int format;  // 0: dense, 1: sparse CSR
  int dense_size;
  TfLiteIntArray* array_segments;
  TfLiteIntArray* array_indices;
};
struct TfLiteSparsity {
  TfLiteIntArray* traversal_order;
  TfLiteIntArray* block_map;
  TfLiteDimensionMetadata* dim_metadata;
  int dim_metadata_size;
};
struct TfLiteTensor {
  int type;
  void* data;
  TfLiteIntArray* dims;
  TfLiteQuantizationParams params;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  TfLiteDelegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  TfLiteQuantization quantization;
  TfLiteSparsity* sparsity;
  const TfLiteIntArray* dims_signature;
};
struct TfLiteNode {
  TfLiteIntArray *inputs, *outputs, *intermediates, *temporaries;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  TfLiteDelegate* delegate;
  bool might_have_side_effect;
};
struct TfLiteDelegateParams {
  TfLiteDelegate* delegate;
  TfLiteIntArray *nodes_to_replace, *input_tensors, *output_tensors;
};
struct TfLiteRegistration {
  void* (*init)(TfLiteContext*, const char*, size_t);
  void (*free)(TfLiteContext*, void*);
  TfLiteStatus (*prepare)(TfLiteContext*, TfLiteNode*);
  TfLiteStatus (*invoke)(TfLiteContext*, TfLiteNode*);
  const char* (*profiling_string)(const TfLiteContext*, const TfLiteNode*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;  // newer than 2.14
  void* spare[4];
};
struct TfLiteContext {
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(TfLiteContext*, TfLiteIntArray**);
  TfLiteTensor* tensors;
  void* impl;
  TfLiteStatus (*ResizeTensor)(TfLiteContext*, TfLiteTensor*, TfLiteIntArray*);
  void (*ReportError)(TfLiteContext*, const char*, ...);
  TfLiteStatus (*AddTensors)(TfLiteContext*, int, int*);
  TfLiteStatus (*GetNodeAndRegistration)(TfLiteContext*, int, TfLiteNode**, TfLiteRegistration**);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(TfLiteContext*, TfLiteRegistration,
                                                        const TfLiteIntArray*, TfLiteDelegate*);
  int recommended_num_threads;
};
struct TfLiteDelegate {
  void* data;
  TfLiteStatus (*Prepare)(TfLiteContext*, TfLiteDelegate*);
  TfLiteStatus (*CopyFromBufferHandle)(TfLiteContext*, TfLiteDelegate*, int, TfLiteTensor*);
  TfLiteStatus (*CopyToBufferHandle)(TfLiteContext*, TfLiteDelegate*, int, TfLiteTensor*);
  void (*FreeBufferHandle)(TfLiteContext*, TfLiteDelegate*, int*);
  int64_t flags;
  void* opaque_delegate_builder;
  void* spare[2];
};

struct TfLiteConvParams {
  int padding;
  int stride_width, stride_height;
  int activation;
  int dilation_width_factor, dilation_height_factor;
};
struct TfLiteDepthwiseConvParams {
  int padding;
  int stride_width, stride_height;
  int depth_multiplier;
  int activation;
  int dilation_width_factor, dilation_height_factor;
};
struct TfLiteFullyConnectedParams {
  int activation;
  int weights_format;  // 0: default
  bool keep_num_dims;
  bool asymmetric_quantize_inputs;
};
struct TfLiteAddParams {
  int activation;
  bool pot_scale_int16;
};
struct TfLitePoolParams {
  int padding;
  int stride_width, stride_height;
  int filter_width, filter_height;
  int activation;
};
}  // extern "C"

// The values that we test for; the names and numbers are those of TFLite's enumerations. Types are fixed
// where values come from files, which may have others.
enum Operator : int {
  kAdd = 0,
  kAveragePool = 1,
  kConv2d = 3,
  kDepthwiseConv2d = 4,
  kFullyConnected = 9,
  kMaxPool = 17,
  kPad = 34,
  kDelegate = 51,
  kDensify = 124,
};
enum TensorType { kFloat32 = 1, kInt32 = 2, kInt64 = 4, kInt8 = 9 };
enum Allocation { kMmapRo = 1, kArenaRw = 2, kArenaRwPersistent = 3, kDynamic = 4 };
enum Padding : int { kSame = 1, kValid = 2 };
enum Activation : int { kNone = 0, kRelu = 1, kReluN1To1 = 2, kRelu6 = 3 };
enum DelegateFlags { kAllowDynamicTensors = 1, kRequirePropagatedShapes = 2 };
