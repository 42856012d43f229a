// Runs model.tflite once and prints its first output: ./main INPUT.f32 [LIBRARY [DELEGATE]]
//
//   c++ -std=c++17 -O2 main.cc -ldl -o main
//
// INPUT.f32: the first input as raw float32 numbers, scaled as transform.json says.
// LIBRARY: TensorFlow Lite's C library, libtensorflowlite_c.so by default. Neither runtime of pip has
// it; build it with `bazel build -c opt //tensorflow/lite/c:tensorflowlite_c` in TensorFlow's sources.
// It is loaded while the program runs, so that no headers are needed: its C interface, declared below,
// has been the same since TensorFlow 2.3.
// DELEGATE: the path of the model's libedgesparse library, where it lies beside the model.
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <vector>

struct Model;
struct Options;
struct Interpreter;
struct Tensor;
struct Delegate;
struct Quantization {
  float scale;
  int32_t zero_point;
};
enum Type { kFloat32 = 1, kUInt8 = 3, kInt16 = 7, kInt8 = 9 };

// TFLite's C interface, as far as it is used here; the names without "TfLite".
struct Api {
  Model* (*ModelCreateFromFile)(const char* path);
  Options* (*InterpreterOptionsCreate)();
  void (*InterpreterOptionsSetNumThreads)(Options*, int32_t);
  void (*InterpreterOptionsAddDelegate)(Options*, Delegate*);
  Interpreter* (*InterpreterCreate)(const Model*, const Options*);
  int (*InterpreterAllocateTensors)(Interpreter*);
  Tensor* (*InterpreterGetInputTensor)(const Interpreter*, int32_t);
  int (*InterpreterInvoke)(Interpreter*);
  const Tensor* (*InterpreterGetOutputTensor)(const Interpreter*, int32_t);
  int (*TensorType)(const Tensor*);
  size_t (*TensorByteSize)(const Tensor*);
  Quantization (*TensorQuantizationParams)(const Tensor*);
  int (*TensorCopyFromBuffer)(Tensor*, const void*, size_t);
  int (*TensorCopyToBuffer)(const Tensor*, void*, size_t);
};

// Real numbers to an integer input and back; without a scale they are the integers.
template <typename T>
std::vector<char> Quantized(const std::vector<float>& values, Quantization q) {
  std::vector<char> bytes(values.size() * sizeof(T));
  T* target = reinterpret_cast<T*>(bytes.data());
  using Limits = std::numeric_limits<T>;
  for (size_t i = 0; i < values.size(); ++i) {
    float level = q.scale ? std::nearbyint(values[i] / q.scale) + q.zero_point : values[i];
    target[i] = static_cast<T>(std::fmin(std::fmax(level, Limits::min()), Limits::max()));
  }
  return bytes;
}

template <typename T>
std::vector<float> Real(const std::vector<char>& bytes, Quantization q) {
  const T* source = reinterpret_cast<const T*>(bytes.data());
  std::vector<float> values(bytes.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = q.scale ? (source[i] - q.zero_point) * q.scale : source[i];
  return values;
}

// Runs a model once. Returns nullptr, or why it failed.
static const char* Run(const Api* api, const char* path, Delegate* delegate, int threads,
                       const std::vector<float>* input, std::vector<float>* output) {
  Model* model = api->ModelCreateFromFile(path);
  if (!model) return "the model cannot be read";
  Options* options = api->InterpreterOptionsCreate();
  api->InterpreterOptionsSetNumThreads(options, threads);
  if (delegate) api->InterpreterOptionsAddDelegate(options, delegate);
  Interpreter* interpreter = api->InterpreterCreate(model, options);
  if (!interpreter || api->InterpreterAllocateTensors(interpreter)) return "the model cannot be loaded";

  Tensor* source = api->InterpreterGetInputTensor(interpreter, 0);
  Quantization q = api->TensorQuantizationParams(source);
  std::vector<char> bytes;
  switch (api->TensorType(source)) {
    case kUInt8: bytes = Quantized<uint8_t>(*input, q); break;
    case kInt8: bytes = Quantized<int8_t>(*input, q); break;
    case kInt16: bytes = Quantized<int16_t>(*input, q); break;
    case kFloat32: {
      const char* begin = reinterpret_cast<const char*>(input->data());
      bytes.assign(begin, begin + input->size() * sizeof(float));
      break;
    }
    default: return "the input has a type that this program does not know";
  }
  if (api->TensorByteSize(source) != bytes.size()) return "the input has another size";
  if (api->TensorCopyFromBuffer(source, bytes.data(), bytes.size())) return "the input cannot be set";
  if (api->InterpreterInvoke(interpreter)) return "the inference failed";

  const Tensor* target = api->InterpreterGetOutputTensor(interpreter, 0);
  bytes.resize(api->TensorByteSize(target));
  if (api->TensorCopyToBuffer(target, bytes.data(), bytes.size())) return "the output cannot be read";
  q = api->TensorQuantizationParams(target);
  switch (api->TensorType(target)) {
    case kUInt8: *output = Real<uint8_t>(bytes, q); return nullptr;
    case kInt8: *output = Real<int8_t>(bytes, q); return nullptr;
    case kInt16: *output = Real<int16_t>(bytes, q); return nullptr;
    case kFloat32: *output = Real<float>(bytes, {1.0f, 0}); return nullptr;
    default: return "the output has a type that this program does not know";
  }
}

#define LOAD(name) \
  if (!(api.name = reinterpret_cast<decltype(api.name)>(dlsym(library, "TfLite" #name)))) \
    return std::fprintf(stderr, "error: %s lacks TfLite%s\n", file, #name), 1

int main(int count, char** words) {
  if (count < 2) return std::fprintf(stderr, "usage: %s INPUT.f32 [LIBRARY [DELEGATE]]\n", words[0]), 1;
  const char* file = count > 2 ? words[2] : "libtensorflowlite_c.so";
  void* library = dlopen(file, RTLD_NOW | RTLD_GLOBAL);
  if (!library) return std::fprintf(stderr, "error: %s\n", dlerror()), 1;
  Api api;
  LOAD(ModelCreateFromFile);
  LOAD(InterpreterOptionsCreate);
  LOAD(InterpreterOptionsSetNumThreads);
  LOAD(InterpreterOptionsAddDelegate);
  LOAD(InterpreterCreate);
  LOAD(InterpreterAllocateTensors);
  LOAD(InterpreterGetInputTensor);
  LOAD(InterpreterInvoke);
  LOAD(InterpreterGetOutputTensor);
  LOAD(TensorType);
  LOAD(TensorByteSize);
  LOAD(TensorQuantizationParams);
  LOAD(TensorCopyFromBuffer);
  LOAD(TensorCopyToBuffer);

  Delegate* delegate = nullptr;
  if (count > 3) {
    using Create = Delegate* (*)(char**, char**, size_t, void (*)(const char*));
    void* plugin = dlopen(words[3], RTLD_NOW);
    Create create = plugin ? reinterpret_cast<Create>(dlsym(plugin, "tflite_plugin_create_delegate")) : nullptr;
    delegate = create ? create(nullptr, nullptr, 0, nullptr) : nullptr;
    if (!delegate) std::fprintf(stderr, "warning: %s cannot be used\n", words[3]);
  }

  std::ifstream stream(words[1], std::ios::binary);
  if (!stream) return std::fprintf(stderr, "error: %s cannot be read\n", words[1]), 1;
  std::vector<char> content((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  const float* numbers = reinterpret_cast<const float*>(content.data());
  std::vector<float> input(numbers, numbers + content.size() / sizeof(float)), output;
  const char* error = Run(&api, "model.tflite", delegate, 1, &input, &output);
  if (error) return std::fprintf(stderr, "error: %s\n", error), 1;
  for (float value : output) std::printf("%.6g\n", value);
  return 0;
}
